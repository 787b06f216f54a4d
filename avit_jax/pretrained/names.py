"""Names and layouts of PyTorch weights (timm, DeiT, official A-ViT), in both directions.

PyTorch keeps a linear weight as (out, in) and the patch convolution as (D, 3, p, p); here a linear
kernel is (in, out), the patch embedding is a linear layer over (row, column, colour), and the
blocks are stacked on a leading layer axis. Only axes are moved, so a round trip is exact bit for
bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.errors import UserError
from avit_jax.models import functional
from avit_jax.models.backbone import Shape
from avit_jax.models.functional import Params

_PATCHES = "patch_embed.proj.weight"
# Path of our modules -> name upstream; parameters of a linear or norm follow below.
_LINEAR = {"kernel": "weight", "bias": "bias"}
_NORM = {"scale": "weight", "bias": "bias"}
# T2T-ViT calls both kinds of attention between its soft splits alike.
_PERFORMERS = {
    f"tokens_to_token.performer{number}.{ours}": f"tokens_to_token.attention{number}.{theirs}"
    for number in (1, 2)
    for ours, theirs in {
        "norm1": "norm1",
        "kqv": "kqv",
        "proj": "proj",
        "norm2": "norm2",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
        "w": "w",
    }.items()
}
_TRANSFORMERS = {
    f"tokens_to_token.transformer{number}.{ours}": f"tokens_to_token.attention{number}.{theirs}"
    for number in (1, 2)
    for ours, theirs in {
        "norm1": "norm1",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }.items()
}
_TOP = {
    "cls_token": "cls_token",
    "dist_token": "dist_token",
    "pos_embed": "pos_embed",
    "patch_embed": "patch_embed.proj",
    "tokens_to_token.project": "tokens_to_token.project",
    **_PERFORMERS,
    **_TRANSFORMERS,
    "norm": "norm",
    "head": "head",
    "head_dist": "head_dist",
}
_BLOCK = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
# AdaViT's: those of the last blocks, of which upstream counts from the first of all.
_POLICIES = {
    "heads": "head_select.mlp_head",
    "layers": "layer_select.mlp_head",
    "tokens": "attn.token_select.mlp_head",
}


def upstream_name(path: str) -> str:
    """Upstream's name of the parameter at `path` ("blocks.{}.…" for a stacked one)."""
    for table, prefix, upstream_prefix in (
        (_BLOCK, "blocks.", "blocks.{}."),
        (_POLICIES, "policies.", "blocks.{}."),
        (_TOP, "", ""),
    ):
        for ours, theirs in table.items():
            if path == prefix + ours:
                return upstream_prefix + theirs
            head, _, leaf = path.rpartition(".")
            if head == prefix + ours:
                return f"{upstream_prefix}{theirs}.{(_LINEAR | _NORM)[leaf]}"
    raise KeyError(f"parameter {path!r} has no upstream name.")


def to_torch(params: Params, shape: Shape) -> dict[str, np.ndarray]:
    """Our parameters under upstream's names and in upstream's layouts."""
    state_dict = {}
    for path, leaf in _leaves(params):
        name, array = upstream_name(path), np.asarray(leaf)
        parts = zip(_layers(array, shape), array, strict=True) if "{}" in name else [(0, array)]
        for layer, part in parts:
            state_dict[name.format(layer)] = _layout_to_torch(path, part, shape)
    return state_dict


def from_torch(state_dict: Mapping[str, Any], shape: Shape, expected: Params) -> Params:
    """Upstream's parameters as ours.

    Args:
        state_dict: names to arrays.
        shape: of the model they are for.
        expected: tree of shapes that the model wants.

    Raises:
        ValueError: lists every missing, unknown and misshapen name at once.
    """
    wanted = {}
    for path, leaf in _leaves(expected):
        name = upstream_name(path)
        stacked = "{}" in name
        empty = np.empty(leaf.shape[1:] if stacked else leaf.shape, np.bool_)
        shape_there = _layout_to_torch(path, empty, shape).shape
        for layer in _layers(leaf, shape) if stacked else [0]:
            wanted[name.format(layer)] = shape_there
    _check(state_dict, wanted)

    def convert(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = upstream_name(path)
        if "{}" not in name:
            array = _layout_from_torch(path, np.asarray(state_dict[name]))
        else:
            array = np.stack(
                [
                    _layout_from_torch(path, np.asarray(state_dict[name.format(layer)]))
                    for layer in _layers(leaf, shape)
                ]
            )
        return jnp.asarray(array.reshape(leaf.shape), leaf.dtype)

    return functional.map_paths(convert, expected)


def _check(state_dict: Mapping[str, Any], wanted: Mapping[str, tuple[int, ...]]) -> None:
    found = {name: tuple(np.shape(array)) for name, array in state_dict.items()}
    problems = [f"missing {n} {s}" for n, s in wanted.items() if n not in found]
    problems += [f"unknown {n} {s}" for n, s in found.items() if n not in wanted]
    problems += [
        f"{n} has shape {found[n]}, the model wants {s}"
        for n, s in wanted.items()
        if n in found and found[n] != s
    ]
    if problems:
        raise UserError(
            f"these weights do not fit the model ({len(problems)} names): {'; '.join(problems)}; "
            f"{_advice(found, wanted)}."
        )


def _advice(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """What to do about the most frequent misfits."""
    advice = []
    if ("dist_token" in found) != ("dist_token" in wanted):
        kind = "are distilled" if "dist_token" in found else "have no distillation token"
        advice.append(f"the weights {kind}: set distilled={'dist_token' in found}")
    patch = found.get(_PATCHES, ())[-1:]
    if patch and patch != wanted.get(_PATCHES, ())[-1:]:
        advice.append(f"the weights embed patches of {patch[0]} pixels: set patch_size={patch[0]}")
    if any(name.startswith("pre_logits.") for name in found):
        advice.append(
            "the classifier reads a layer pre_logits that this model lacks: set another "
            "num_classes, which replaces both, or take weights without it"
        )
    if any("embeddings.patch_embeddings" in name for name in found):
        advice.append(
            "the names are those of the package transformers: take timm's weights of the same model"
        )
    return ", and ".join(advice) or (
        "create the model with the sizes that the weights were trained with"
    )


def _layers(stacked: Any, shape: Shape) -> range:
    """Blocks that the rows of a stacked parameter belong to: the last ones, where not all."""
    return range(shape.depth - stacked.shape[0], shape.depth)


def _leaves(params: Params) -> list[tuple[str, Any]]:
    leaves = []
    functional.map_paths(lambda path, leaf: leaves.append((path, leaf)), params)
    return leaves


def _layout_to_torch(path: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    if path == "patch_embed.kernel":
        size = shape.patch_size
        return array.reshape(size, size, 3, -1).transpose(3, 2, 0, 1)
    return array.T if path.endswith(".kernel") else array


def _layout_from_torch(path: str, array: np.ndarray) -> np.ndarray:
    if path == "patch_embed.kernel":
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T if path.endswith(".kernel") else array
