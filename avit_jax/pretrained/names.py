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

from avit_jax.models import functional
from avit_jax.models.functional import Params
from avit_jax.models.misfits import differ, misfit
from avit_jax.models.shape import Shape
from avit_jax.pretrained.advice import advice

# Names of modules and parameters, ours to upstream's, where they differ; `{}` is the number of the
# block. Those in front of the blocks are the backbone's (`Shape.upstream_names`), and those of
# attention that timm has no model of are ours.
_BLOCKS = {
    "blocks.norm1": "blocks.{}.norm1",
    "blocks.attention.qkv": "blocks.{}.attn.qkv",
    "blocks.attention.proj": "blocks.{}.attn.proj",
    "blocks.attention.query_norm": "blocks.{}.attn.q_norm",
    "blocks.attention.key_norm": "blocks.{}.attn.k_norm",
    "blocks.attention.kind.logit_scale": "blocks.{}.attn.logit_scale",
    "blocks.attention.kind.frequencies": "blocks.{}.attn.frequencies",
    "blocks.attention.kind.phases": "blocks.{}.attn.phases",
    "blocks.attention.gamma": "blocks.{}.ls1.gamma",
    "blocks.mlp_tokens.fc1": "blocks.{}.mlp_tokens.fc1",
    "blocks.mlp_tokens.fc2": "blocks.{}.mlp_tokens.fc2",
    "blocks.mlp_tokens.gamma": "blocks.{}.ls1.gamma",
    "blocks.norm2": "blocks.{}.norm2",
    "blocks.mlp.fc1": "blocks.{}.mlp.fc1",
    "blocks.mlp.fc2": "blocks.{}.mlp.fc2",
    "blocks.mlp.gamma": "blocks.{}.ls2.gamma",
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
    if shape.averages:
        table["norm"] = "fc_norm"
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
        UserError: counts missing, unknown and misshapen names, with examples and advice.
    """
    found = {name: tuple(np.shape(array)) for name, array in state_dict.items()}
    needed = wanted(expected, shape, own)
    if differ(found, needed):
        raise misfit("these weights do", found, needed, advice(found, needed))

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


def wanted(expected: Params, shape: Shape, own: Names) -> dict[str, tuple[int, ...]]:
    """Upstream's names and shapes of all parameters; arguments as of `from_torch`."""
    shapes = {}
    for path, leaf in _leaves(expected):
        name = upstream_name(path, shape, own)
        stacked = "{}" in name
        empty = np.empty(leaf.shape[1:] if stacked else leaf.shape, np.bool_)
        shape_there = _layout_to_torch(path, empty, shape).shape
        for layer in _layers(leaf, shape) if stacked else [0]:
            shapes[name.format(layer)] = shape_there
    return shapes


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
