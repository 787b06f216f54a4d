"""What to do about weights that do not fit, read off how their names and shapes differ.

The first reason that applies is the one that is said: whose names they are, what the network has
that none here has, and then the sizes to create the model with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from avit_jax.models.misfits import Shapes

_PATCHES, _POSITIONS = "patch_embed.proj.weight", "pos_embed"
# A pattern of names that only one library has, and whose they are.
_LIBRARIES = (
    (r"encoder\.layers\.encoder_layer_0\.", "torchvision"),
    (r"(visual|text|transformer)\.(.*\.)?resblocks\.0\.|^logit_scale$", "a CLIP model"),
    (r"^params/|^(Transformer/)?encoderblock/", "big_vision"),
    (r"^(backbone\.)?layers\.\d+\.(ln1|attn\.qkv)", "MMPretrain"),
    (r"^(bert|gpt2|roberta|t5)\.", "a language model"),
    (r"encoder\.layer\.\d+\.|layers\.\d+\.attention\.", "another model of transformers"),
    (r"^(layer1\.0|conv1)\.", "a ResNet"),
    (r"^layers\.\d+\.blocks\.\d+\.", "a Swin transformer"),
)
# A pattern of names of a part that no model here has, and what it is.
_PARTS = (
    (r"rel(ative)?_pos|\.rope|^rope", "relative or rotary positions"),
    (r"\.w12\.|\.w3\.|fc1_[gx]|\.gate_proj\.|\.mlp\.weights_(in|out)\.", "gated MLPs (SwiGLU)"),
    (r"\.lora_|\.base_layer\.", "adapters (LoRA) that were not merged"),
    (r"^attn_pool\.", "attention pooling"),
    (r"^norm_pre\.", "a norm in front of the blocks"),
)

# A pattern of names of parts that a setting adds, what they are, and that setting on and off.
_ADDED = (
    (
        r"\.ls[12]\.gamma$|\.gamma_[12]$|\.lambda_?1$|layer_scale",
        "LayerScale (as in DeiT III)",
        ("layer_scale=1e-5", "layer_scale=None"),
    ),
    (r"\.(q|k)_norm\.", "norms of queries and keys", ("qk_norm=True", "qk_norm=False")),
    (r"^reg_token$", "register tokens", ("num_registers={}", "num_registers=0")),
    (r"^fc_norm\.", "a norm of averaged patches (fc_norm)", ('pool="avg"', 'pool="token"')),
)


def advice(found: Shapes, wanted: Shapes) -> str:
    """What to do about the most frequent misfits, as one clause."""
    known = found.keys() & wanted.keys()
    if len(known) < len(wanted) / 2 and (whose := _other_names(found, known)):
        return whose
    for reason in _REASONS:
        if said := reason(found, wanted):
            return said
    if all(found[name] == wanted[name] for name in known):
        if known == found.keys():
            return "a part of them is missing: take the whole file, or all of its shards"
        if known == wanted.keys():
            return "all is there: take out the unknown names, if they are of something beside it"
    return "create the model with the sizes that the weights were trained with"


def _other_names(found: Shapes, known: Collection[str]) -> str | None:
    for pattern, library in _LIBRARIES:
        if any(re.search(pattern, name) for name in found):
            return f"the names are those of {library}: take timm's weights of the same model"
    if known:
        return None
    return "no name is one of timm, DeiT, A-ViT or transformers: take weights of such a model"


def _part(found: Shapes, wanted: Shapes) -> str | None:
    for pattern, part in _PARTS:
        if any(re.search(pattern, name) for name in found.keys() - wanted.keys()):
            return f"the weights have {part}, which no model here has: take those of another model"
    return None


def _added(found: Shapes, wanted: Shapes) -> str | None:
    for pattern, part, (on, off) in _ADDED:
        theirs, ours = (
            any(re.search(pattern, name) for name in names) for names in (found, wanted)
        )
        if theirs != ours:
            setting = on.format(*found.get("reg_token", (0, 4))[1:2]) if theirs else off
            return f"the weights have {'' if theirs else 'no '}{part}: set {setting}"
    return None


def _numbers_of_tokens(found: Shapes, wanted: Shapes) -> str | None:
    for name, setting in (("cls_token", "num_class_tokens"), ("reg_token", "num_registers")):
        theirs, ours = found.get(name, ()), wanted.get(name, ())
        if len(theirs) == 3 and theirs[1:2] != ours[1:2]:
            return f"the weights have {theirs[1]} in {name}: set {setting}={theirs[1]}"
    return None


def _incomplete(found: Shapes, wanted: Shapes) -> str | None:
    parts = re.compile(r"blocks\.(\d+)\.attn\.(query|key|value)\.")
    blocks = [match[1] for match in map(parts.match, found.keys() - wanted.keys()) if match]
    if not blocks:
        return None
    return (
        f"query, key and value of block {min(blocks, key=int)} are not all there, or not of one "
        "shape: take the whole file"
    )


def _architecture(found: Shapes, wanted: Shapes) -> str | None:
    for prefix, models in (("tokens_to_token.", "t2t_vit"), (_PATCHES, "deit or vit")):
        if any(n.startswith(prefix) for n in found) and not any(
            n.startswith(prefix) for n in wanted
        ):
            return f"the weights are of another backbone: create a {models} model"
    return None


def _distilled(found: Shapes, wanted: Shapes) -> str | None:
    if ("dist_token" in found) == ("dist_token" in wanted):
        return None
    kind = "are distilled" if "dist_token" in found else "have no distillation token"
    return f"the weights {kind}: set distilled={'dist_token' in found}"


def _patches(found: Shapes, wanted: Shapes) -> str | None:
    theirs, ours = found.get(_PATCHES), wanted.get(_PATCHES)
    if theirs is None or ours is None or theirs == ours:
        return None
    if len(theirs) != 4:
        return (
            f"the patch embedding is a matrix {theirs}, not a convolution: reshape it to "
            "(channels, 3, patch, patch)"
        )
    if theirs[1] != 3:
        kind = {1: "grey images (1 channel)"}.get(theirs[1], f"images of {theirs[1]} channels")
        return f"the weights are for {kind}, the models here for 3 (RGB): take weights for those"
    if theirs[2] != theirs[3]:
        return (
            f"the weights embed patches of {theirs[2]} x {theirs[3]} pixels, here they are square"
        )
    if theirs[3] != ours[3]:
        return f"the weights embed patches of {theirs[3]} pixels: set patch_size={theirs[3]}"
    return None


def _sizes(found: Shapes, wanted: Shapes) -> str | None:
    settings = []
    for name, setting in (("norm.weight", "embed_dim"), ("blocks.0.norm1.weight", "embed_dim")):
        if name in found and name in wanted and found[name] != wanted[name]:
            settings = [f"{setting}={found[name][0]} with as many heads as the weights have"]
    depths = [_depth(found), _depth(wanted)]
    if min(depths) and depths[0] != depths[1]:
        settings.append(f"depth={depths[0]}")
    name = "blocks.0.mlp.fc1.bias"
    width = found.get("blocks.0.norm1.weight")
    if not settings and width and found.get(name, ()) != wanted.get(name, ()) and name in found:
        settings.append(f"mlp_ratio={found[name][0] / width[0]:g}")
    return f"create the model with {' and '.join(settings)}" if settings else None


def _biases(found: Shapes, wanted: Shapes) -> str | None:
    def has(names: Shapes) -> bool:
        return any(re.search(r"\.attn\.(qkv|query)\.bias$", name) for name in names)

    if has(found) == has(wanted):
        return None
    some = "" if has(found) else "no "
    return f"the weights have {some}biases of query, key and value: set qkv_bias={has(found)}"


def _positions(found: Shapes, wanted: Shapes) -> str | None:
    theirs, ours = found.get(_POSITIONS), wanted.get(_POSITIONS)
    if (theirs is None) != (ours is None):
        return (
            "the weights have a table of positions: set pos_embed=learned"
            if ours is None
            else "the weights have no table of positions: set pos_embed as they were trained"
        )
    if theirs is None or ours is None or theirs == ours or theirs[-1:] != ours[-1:]:
        return None
    if len(theirs) != 3:
        return f"the positions are a table {theirs}: reshape it to (1, tokens, channels)"
    prefix = 2 if "dist_token" in wanted else 1
    return (
        f"the positions are of {theirs[1] - prefix} patches, which is no square grid: take weights "
        "for square images"
    )


def _before_classifier(found: Shapes, wanted: Shapes) -> str | None:
    if not any(name.startswith("pre_logits.") for name in found):
        return None
    return (
        "the classifier reads a layer pre_logits that this model lacks: set another num_classes, "
        "which replaces both, or take weights without it"
    )


def _norms(found: Shapes, wanted: Shapes) -> str | None:
    norm = "blocks.0.norm1"
    theirs, ours = (f"{norm}.bias" in names for names in (found, wanted))
    if f"{norm}.weight" not in found or theirs == ours:
        return None
    kind = "layernorm" if theirs else "rmsnorm"
    return f"the weights have norms with{'' if theirs else 'out'} biases: set norm={kind!r}"


def _depth(names: Shapes) -> int:
    numbers = [int(match[1]) for match in (re.match(r"blocks\.(\d+)\.", n) for n in names) if match]
    return max(numbers, default=-1) + 1


_REASONS: tuple[Callable[[Shapes, Shapes], str | None], ...] = (
    _part,
    _added,
    _incomplete,
    _architecture,
    _distilled,
    _numbers_of_tokens,
    _sizes,
    _patches,
    _biases,
    _norms,
    _positions,
    _before_classifier,
)
