"""Names of Hugging Face's package transformers for ViT and DeiT, in both directions; DINOv2's read.

Weights on the hub, and what `save_pretrained` writes in any version, have the names of version 4
(`vit.encoder.layer.0.attention.attention.query`); the modules of version 5 are called otherwise
(`vit.layers.0.attention.q_proj`). Both keep query, key and value apart; timm has them as one array.
Everything else is timm's but for its name, so a round trip is exact bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from avit_jax.errors import UserError
from avit_jax.models.shape import Shape
from avit_jax.pretrained.query_key_value import apart, joined
from avit_jax.pretrained.wrappers import warn_left_out

Arrays = dict[str, np.ndarray]
# Of modules, timm's to those of transformers, `{}` for the number of the block.
_AROUND = {
    "cls_token": "embeddings.cls_token",
    "dist_token": "embeddings.distillation_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_BLOCKS = {
    "transformers": {
        "norm1": "encoder.layer.{}.layernorm_before",
        "attn.query": "encoder.layer.{}.attention.attention.query",
        "attn.key": "encoder.layer.{}.attention.attention.key",
        "attn.value": "encoder.layer.{}.attention.attention.value",
        "attn.proj": "encoder.layer.{}.attention.output.dense",
        "norm2": "encoder.layer.{}.layernorm_after",
        "mlp.fc1": "encoder.layer.{}.intermediate.dense",
        "mlp.fc2": "encoder.layer.{}.output.dense",
    },
    "transformers5": {
        "norm1": "layers.{}.layernorm_before",
        "attn.query": "layers.{}.attention.q_proj",
        "attn.key": "layers.{}.attention.k_proj",
        "attn.value": "layers.{}.attention.v_proj",
        "attn.proj": "layers.{}.attention.o_proj",
        "norm2": "layers.{}.layernorm_after",
        "mlp.fc1": "layers.{}.mlp.fc1",
        "mlp.fc2": "layers.{}.mlp.fc2",
    },
}
LAYOUTS = tuple(_BLOCKS)
# Only read: of DINOv2, whose attention is called as that of the others, or as version 5's modules.
_DINOV2 = {
    "encoder.layer.{}.norm1": "norm1",
    "encoder.layer.{}.attention.q_proj": "attn.query",
    "encoder.layer.{}.attention.k_proj": "attn.key",
    "encoder.layer.{}.attention.v_proj": "attn.value",
    "encoder.layer.{}.attention.o_proj": "attn.proj",
    "encoder.layer.{}.layer_scale1": "ls1",
    "encoder.layer.{}.norm2": "norm2",
    "encoder.layer.{}.mlp.fc1": "mlp.fc1",
    "encoder.layer.{}.mlp.fc2": "mlp.fc2",
    "encoder.layer.{}.layer_scale2": "ls2",
}
_LEAVES = {"lambda1": "gamma"}
_HEADS = {"head": ("classifier", "cls_classifier"), "head_dist": ("distillation_classifier",)}
# Only read: in case a version writes it so, and of DINOv2.
_ALSO = {
    "embeddings.patch_embedding": "patch_embed.proj",
    "embeddings.register_tokens": "reg_token",
}
_OURS = re.compile(r"blocks\.(\d+)\.(.+)")


def is_transformers(names: Mapping[str, object]) -> bool:
    """Whether names are those of transformers' ViTs, without such as `vit.` in front."""
    return "embeddings.cls_token" in names and not any(n.startswith("blocks.") for n in names)


def to_timm(state_dict: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays under timm's names; unknown ones stay as they are.

    What is not used of a network without a classifier (a pooler, a token for masked images) is left
    out, with a warning.

    Args:
        state_dict: arrays under transformers' names, without `vit.` or `deit.` in front.
    """
    modules = {theirs: ours for ours, theirs in _AROUND.items()} | _ALSO
    modules |= {theirs: ours for ours, all_of in _HEADS.items() for theirs in all_of}
    blocks = {
        theirs.replace("{}", "#"): ours
        for names in _BLOCKS.values()
        for ours, theirs in names.items()
    }
    blocks |= {theirs.replace("{}", "#"): ours for theirs, ours in _DINOV2.items()}
    renamed: Arrays = {}
    unused = [n for n in state_dict if n.startswith("pooler.") or n == "embeddings.mask_token"]
    for name, array in state_dict.items():
        if name in unused:
            continue
        module, _, leaf = name.rpartition(".")
        number = re.search(r"(?<=\.)\d+(?=\.)", module)
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "#", module, count=1)
        if number and pattern in blocks:
            leaf = _LEAVES.get(leaf, leaf)
            renamed[f"blocks.{number[0]}.{blocks[pattern]}.{leaf}"] = array
        elif name in modules:
            renamed[modules[name]] = array
        elif module in modules:
            renamed[f"{modules[module]}.{leaf}"] = array
        else:
            renamed[name] = array
    warn_left_out("read by no classifier of transformers", unused)
    return joined(_without_joint_classifier(renamed))


def _without_joint_classifier(state_dict: Arrays) -> Arrays:
    """Without DINOv2's classifier, which reads class token and mean of the patches side by side."""
    width = np.shape(state_dict["cls_token"])[-1:]
    if np.shape(state_dict.get("head.weight"))[-1:] != tuple(2 * channels for channels in width):
        return state_dict
    own = ["head.weight", "head.bias"]
    warn_left_out("a classifier of class token and mean of the patches together", own)
    return {name: array for name, array in state_dict.items() if name not in own}


def refuse_other_tokens(shape: Shape) -> None:
    """Raises UserError for a model whose tokens are not those of transformers' ViT and DeiT."""
    tokens = {
        "num_class_tokens": (shape.num_class_tokens, 1),
        "num_registers": (shape.num_registers, 0),
        "pool": (shape.pool, "token"),
        "pos_embed_prefix": (shape.pos_embed_prefix, True),
    }
    for name, (found, theirs) in tokens.items():
        if found != theirs:
            raise UserError(
                f"{name} is {found!r}, but transformers' ViT and DeiT have {theirs!r}: write these "
                "weights in timm's names (layout='timm')."
            )


def from_timm(state_dict: Mapping[str, np.ndarray], layout: str) -> Arrays:
    """The inverse of `to_timm`, under the names of a `ForImageClassification` model.

    A distilled model is a `DeiTForImageClassificationWithTeacher`, any other a
    `ViTForImageClassification`.

    Args:
        state_dict: arrays under timm's names.
        layout: one of `LAYOUTS`.

    Raises:
        UserError: a name that transformers has no counterpart of.
    """
    if "pos_embed" not in state_dict:
        raise UserError(
            "transformers' ViT and DeiT have a table of positions (model.pos_embed learned, or "
            "sinusoids), which these weights lack: write them in timm's names (layout='timm')."
        )
    distilled = "dist_token" in state_dict
    root, heads = ("deit", 1) if distilled else ("vit", 0)
    named: Arrays = {}
    for name, array in apart(state_dict).items():
        module, _, leaf = name.rpartition(".")
        block = _OURS.fullmatch(module)
        if block and block[2] in _BLOCKS[layout]:
            named[f"{root}.{_BLOCKS[layout][block[2]].format(block[1])}.{leaf}"] = array
        elif name in _AROUND:
            named[f"{root}.{_AROUND[name]}"] = array
        elif module in _AROUND:
            named[f"{root}.{_AROUND[module]}.{leaf}"] = array
        elif module in _HEADS:
            named[f"{_HEADS[module][heads if module == 'head' else 0]}.{leaf}"] = array
        else:
            raise UserError(
                f"transformers' ViT and DeiT have nothing like {name}: write these weights in "
                "timm's names (layout='timm')."
            )
    return named
