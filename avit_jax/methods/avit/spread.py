"""Neighbour halting: a patch that halts by its own score takes its neighbours on the grid with it.

Borgi's AdaViT explores such neighbourhoods, to make maps of depths smoother. Here neighbours are
those on the grid of the same image, nothing wraps around its edges, and only tokens whose *own*
score halts them in a layer take others along: what was taken along takes nobody.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.data.mix import STD
from avit_jax.models.shape import Shape

Offsets = frozenset[tuple[int, int]]

_REACH = 2  # no neighbourhood goes farther, in rows or in columns
_BLOCK = frozenset(itertools.product(range(-_REACH, _REACH + 1), repeat=2)) - {(0, 0)}
_BESIDE = frozenset({(0, -1), (0, 1)})
_CROSS = _BESIDE | {(-1, 0), (1, 0)}
# Offsets (rows, columns) from a patch to those that it takes along.
NEIGHBOURS: dict[str, Offsets] = {
    "identity": frozenset(),
    "nearby": _BESIDE,
    "cross": _CROSS,
    "diagonal": frozenset(itertools.product((-1, 1), repeat=2)),
    "dilated-isotropic": frozenset((2 * row, 2 * column) for row, column in _CROSS),
    "square": frozenset(at for at in _BLOCK if max(map(abs, at)) == 1),
    "isotropic": frozenset(at for at in _BLOCK if sum(map(abs, at)) <= 2),
    "circle": frozenset(at for at in _BLOCK if sum(map(abs, at)) <= 3),
    "double-square": _BLOCK,
}
ALIASES = {"none": "identity", "dilated": "dilated-isotropic", "double_square": "double-square"}
NAMES = (*ALIASES, *NEIGHBOURS)


def offsets_of(name: str) -> Offsets:
    """A neighbourhood by any of its names."""
    return NEIGHBOURS[ALIASES.get(name, name)]


def beside(sources: Array, offsets: Offsets) -> Array:
    """Which places of a grid lie beside a source; `[..., rows, columns]` bool, as `sources`.

    Shifted copies, one for each offset: that fuses, and needs no scatter.
    """
    rows, columns = sources.shape[-2:]
    around = [(0, 0)] * (sources.ndim - 2) + [(_REACH, _REACH)] * 2
    padded = jnp.pad(sources, around)
    found = jnp.zeros_like(sources)
    for row, column in sorted(offsets):
        first, left = _REACH - row, _REACH - column
        found = found | padded[..., first : first + rows, left : left + columns]
    return found


def taken_along(ended: Array, draws: Array | None, shape: Shape, offsets: Offsets) -> Array:
    """Tokens beside one that ended, `[B, N]` bool; never one of the prefix.

    Args:
        ended: `[B, N]` bool, tokens that their own scores ended in this layer.
        draws: `[B, patches]` bool, those of them that take others along; `None` for all.
        shape: of the network.
        offsets: of neighbours.
    """
    batch, prefix = len(ended), shape.num_prefix_tokens
    sources = ended[:, prefix:]
    if draws is not None:
        sources = sources & draws
    found = beside(sources.reshape(batch, shape.grid, shape.grid), offsets)
    return jnp.pad(found.reshape(batch, -1), ((0, 0), (prefix, 0)))


def draws(content: Array, layer: Array | int, share: Array | float, patches: int) -> Array:
    """Which patches take others along when they end in a layer, `[B, patches]` bool.

    A draw depends on the image, the layer and the patch, and on nothing else: neither on the place
    in the batch, nor on how many images, devices or tokens run beside it.

    Args:
        content: `[B]` uint32, from `content_of`.
        layer: number of the layer; may be traced.
        share: probability of each.
        patches: of an image.
    """

    def of_image(content: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(content, impl="threefry2x32"), layer)
        return jax.random.uniform(key, (patches,), jnp.float32) < share

    return jax.vmap(of_image)(content)


def content_of(images: Array) -> Array:
    """A number for the content of each image `[B, H, W, 3]`, normalised: `[B]` uint32.

    It must be the same in every compiled program, where the last bits of a pixel are not: programs
    that normalise bytes themselves fuse and contract that arithmetic each in its own way, and a sum
    of floating-point numbers depends on its order. So pixels are rounded to whole steps of their
    channel's grey levels, and the sum is one of integers modulo 2^32, in which no order matters. A
    pixel is only multiplied in front of the rounding: a product and a sum might be contracted into
    one operation here and not there, but a product alone rounds the same everywhere. Levels of
    bytes then lie at 0.32, 0.72 and 0.47 between two whole numbers, off every rounding's edge.
    """
    steps = images.astype(jnp.float32) * jnp.asarray([255.0 * std for std in STD], jnp.float32)
    steps = jnp.where(jnp.isfinite(steps), jnp.clip(jnp.round(steps), -(2.0**20), 2.0**20), 0.0)
    levels = steps.astype(jnp.int32).reshape(len(images), -1).astype(jnp.uint32)
    return (levels * _weights(levels.shape[1])).sum(1, dtype=jnp.uint32)


def _weights(count: int) -> Array:
    """Odd numbers `[count]` uint32 that look random: made in the program, which stays small."""
    mixed = jnp.arange(count, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x85EBCA77)
    return (mixed ^ (mixed >> 13)) | jnp.uint32(1)


def at_their_places(flags: Array, index: Array, num_tokens: int) -> Array:
    """Flags `[B, n]` bool of some tokens as `[B, N]`, False for all others.

    Args:
        flags: of each token that is there.
        index: `[B, n]`, which token of its image each is.
        num_tokens: N.
    """
    # Comparing all with all vectorises, and XLA keeps none of the comparisons.
    there = index[:, :, None] == jnp.arange(num_tokens, dtype=index.dtype)
    return (there & flags[:, :, None]).any(1)
