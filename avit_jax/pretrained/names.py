"""Names and layouts of PyTorch weights (timm, DeiT, official A-ViT), in both directions.

PyTorch keeps a linear weight as (out, in) and the patch convolution as (D, 3, p, p); here a linear
kernel is (in, out), a convolution's (row, column, in, out), the patch embedding is a linear layer
over (row, column, colour), and the blocks are stacked on a leading layer axis. Only axes are moved,
so a round trip is exact bit for bit. What a backbone or a method has of its own, it names itself
(`upstream_names`).
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
# Names of modules, ours to upstream's, where they differ; `{}` is the number of the block. Those in
# front of the blocks are the backbone's (`Shape.upstream_names`).
_BLOCKS = {
    "blocks.norm1": "blocks.{}.norm1",
    "blocks.attention.qkv": "blocks.{}.attn.qkv",
    "blocks.attention.proj": "blocks.{}.attn.proj",
    "blocks.norm2": "blocks.{}.norm2",
    "blocks.mlp.fc1": "blocks.{}.mlp.fc1",
    "blocks.mlp.fc2": "blocks.{}.mlp.fc2",
}
# Names of the parameters of a linear layer or a norm.
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}

Names = Mapping[str, str]


def upstream_name(path: str, shape: Shape, own: Names) -> str:
    """Upstream's name of the parameter at `path`, with `{}` for the block of a stacked one.

    Args:
        path: ours, such as "blocks.mlp.fc1.kernel".
        shape: of the backbone.
        own: names of modules and parameters that are the method's own, ours to upstream's.
    """
    table = {**_BLOCKS, **shape.upstream_names, **own}
    if path in table:
        return table[path]
    module, _, leaf = path.rpartition(".")
    if leaf not in _LEAVES:
        return path
    return f"{table.get(module, module)}.{_LEAVES[leaf]}"


def to_torch(params: Params, shape: Shape, own: Names) -> dict[str, np.ndarray]:
    """Our parameters under upstream's names and in upstream's layouts; `own` as above."""
    state_dict = {}
    for path, leaf in _leaves(params):
        name, array = upstream_name(path, shape, own), np.asarray(leaf)
        parts = zip(_layers(array, shape), array, strict=True) if "{}" in name else [(0, array)]
        for layer, part in parts:
            state_dict[name.format(layer)] = _layout_to_torch(path, part, shape)
    return state_dict


def from_torch(state_dict: Mapping[str, Any], shape: Shape, expected: Params, own: Names) -> Params:
    """Upstream's parameters as ours.

    Args:
        state_dict: names to arrays.
        shape: of the model they are for.
        expected: tree of shapes that the model wants.
        own: names of modules and parameters that are the method's own, ours to upstream's.

    Raises:
        ValueError: lists every missing, unknown and misshapen name at once.
    """
    wanted = {}
    for path, leaf in _leaves(expected):
        name = upstream_name(path, shape, own)
        stacked = "{}" in name
        empty = np.empty(leaf.shape[1:] if stacked else leaf.shape, np.bool_)
        shape_there = _layout_to_torch(path, empty, shape).shape
        for layer in _layers(leaf, shape) if stacked else [0]:
            wanted[name.format(layer)] = shape_there
    _check(state_dict, wanted)

    def convert(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = upstream_name(path, shape, own)
        if "{}" not in name:
            array = _layout_from_torch(path, np.asarray(state_dict[name]), shape)
        else:
            array = np.stack(
                [
                    _layout_from_torch(path, np.asarray(state_dict[name.format(layer)]), shape)
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
    module, _, leaf = path.rpartition(".")
    if leaf == "kernel" and (side := shape.convolutions.get(module)):
        array = array.reshape(side, side, -1, array.shape[-1])
    if leaf == "kernel" and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if leaf == "kernel" else array


def _layout_from_torch(path: str, array: np.ndarray, shape: Shape) -> np.ndarray:
    module, _, leaf = path.rpartition(".")
    if leaf == "kernel" and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
        return array.reshape(-1, array.shape[-1]) if module in shape.convolutions else array
    return array.T if leaf == "kernel" else array
