"""Attention of images of unequal length whose rows lie one image behind the other: a TPU kernel.

Rows stay where they are (`image_rows.py`), and scores never leave the chip; the backward pass forms
them anew.

JAX's own kernels do not fit: flash and splash attention mask other images' keys (segment ids) but
compute the products of most of them, and want heads in front of rows, which moves all rows twice;
ragged paged attention takes keys from a cache of pages and has no backward pass.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from avit_jax.models.image_rows import LANES, aligned, existing, over_images, product

_BEHIND = -0.7 * float(jnp.finfo(jnp.float32).max)  # the score of a key that does not exist
_ROOM = 12 * 2**20  # bytes on the chip


def has_room(*, num_tokens: int, embed_dim: int, dtype: str) -> bool:
    """Whether what an image's backward pass needs has room on the chip."""
    longest = aligned(num_tokens)
    rows = 2 * 7 * longest * embed_dim * jnp.dtype(dtype).itemsize  # two images' at a time
    return rows + 4 * 4 * longest**2 <= _ROOM


def mix(
    joined: Array,
    starts: Array,
    lengths: Array,
    *,
    num_heads: int,
    longest: int,
    live: Array | None = None,
    scale: float | None = None,
    front: int | None = None,
) -> Array:
    """Values of rows mixed by softmax attention within each image, `[R, D]`; statistics float32.

    Args:
        joined: queries, keys and values of rows side by side, `[R, 3 * D]`. Rows of no image may
            hold anything.
        starts: `[B]` int32, first row of each image, multiples of `ALIGN`. Up to the next such
            multiple behind an image there is nothing of another one.
        lengths: `[B]` int32, rows of each image; may be 0.
        num_heads: H.
        longest: tokens that an image may have.
        live: `[B, longest]` bool, which of an image's rows are keys; all by default. The others are
            finite.
        scale: factor on the products of queries and keys; `(D / H) ** -0.5` by default.
        front: of each image only so many rows, the first ones, are wanted.

    Returns:
        What rows of no image, and those behind `front`, hold is undefined, NaN perhaps.
    """
    if scale is None:
        scale = (joined.shape[1] // 3 // num_heads) ** -0.5
    most = aligned(longest)
    keys = jnp.arange(most) < lengths[:, None]
    if live is not None:
        keys &= jnp.pad(live, ((0, 0), (0, most - longest)))
    wanted = most if front is None else min(most, aligned(front))
    return _mix(joined, starts, lengths, keys.astype(jnp.float32), (num_heads, most, wanted, scale))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _mix(joined: Array, starts: Array, lengths: Array, keys: Array, how: tuple) -> Array:
    num_heads, longest, wanted, scale = how
    rows, width = joined.shape
    return over_images(
        functools.partial(_forward_body, num_heads=num_heads, scale=scale),
        (joined,),
        starts=starts,
        lengths=lengths,
        longest=longest,
        marks=keys,
        answer=jax.ShapeDtypeStruct((rows, width // 3), joined.dtype),
        answer_longest=wanted,
    )


def _mix_forward(joined, starts, lengths, keys, how):
    return _mix(joined, starts, lengths, keys, how), (joined, starts, lengths, keys)


def _mix_backward(how, kept, gradient):
    joined, starts, lengths, keys = kept
    num_heads, longest, _, scale = how  # all rows had a part in it
    found = over_images(
        functools.partial(_backward_body, num_heads=num_heads, scale=scale),
        (joined, gradient),
        starts=starts,
        lengths=lengths,
        longest=longest,
        marks=keys,
        answer=jax.ShapeDtypeStruct(joined.shape, joined.dtype),
    )
    row = jnp.arange(len(joined))[:, None]
    held = ((starts <= row) & (row < starts + lengths)).any(1, keepdims=True)
    return jnp.where(held, found, 0), None, None, None


_mix.defvjp(_mix_forward, _mix_backward)


def _by_columns(dim: int, num_heads: int, treat: Callable, *, unrolled: bool) -> None:
    """Call `treat(column, size, heads)` for columns to be treated together.

    `heads` says for each of their heads which of these columns are its own. Heads narrower than the
    chip's lanes are not cut out, which would move every row: a product over all lanes, those of
    other heads being 0 on one side, costs the same.
    """
    each = dim // num_heads
    width = LANES if LANES % each == 0 else each

    def slab(column, size: int) -> None:
        lane = lax.broadcasted_iota(jnp.int32, (1, size), 1)
        starts = range(0, size, each) if size > each else ()
        mine = [(start <= lane) & (lane < start + each) for start in starts]
        treat(column, size, mine or [None])

    if not unrolled and dim % width == width % LANES == 0:
        lax.fori_loop(
            0, dim // width, lambda i, _: slab(pl.multiple_of(i * width, width), width), None
        )
        return
    for column in range(0, dim, width):
        slab(column, min(width, dim - column))


def _only(mine: Array | None, rows: Array, others: Array | float = 0.0) -> Array:
    return rows if mine is None else jnp.where(mine, rows, jnp.asarray(others, rows.dtype))


def _weights(query: Array, key: Array, keys: Array, scale: float) -> tuple[Array, Array]:
    """The softmax's numerators `[n, m]` of queries on keys, and their sums `[n, 1]`."""
    products = product(query, key, (1, 1)) * (scale * math.log2(math.e))
    products = jnp.where(keys > 0, products, _BEHIND)  # may be NaN behind the image
    weights = jnp.exp2(products - products.max(1, keepdims=True))
    return weights, weights.sum(1, keepdims=True)


def _forward_body(
    joined, keys, answers, length, *, size: int, num_heads: int, scale: float
) -> None:
    dim, queries = joined.shape[1] // 3, min(size, answers.shape[0])
    keys = keys[:, :size]

    def treat(column, width: int, heads: list[Array | None]) -> None:
        query, key, value = _parts(joined, column, width)
        value = existing(value, length)
        mixed = None
        for mine in heads:
            weights, total = _weights(_only(mine, query[:queries]), key, keys, scale)
            own = product(weights.astype(value.dtype), value, (1, 0)) / total
            mixed = own if mixed is None else _only(mine, own, mixed)
        answers[:queries, pl.ds(column, width)] = mixed.astype(answers.dtype)

    # What is computed for some columns fills the gaps of what is computed for others.
    _by_columns(dim, num_heads, treat, unrolled=True)


def _backward_body(
    joined, gradient, keys, answers, length, *, size: int, num_heads: int, scale: float
) -> None:
    dim, dtype, keys = joined.shape[1] // 3, joined.dtype, keys[:, :size]

    def treat(column, width: int, heads: list[Array | None]) -> None:
        query, key, value = (existing(part, length) for part in _parts(joined, column, width))
        mixed = existing(gradient[:, pl.ds(column, width)], length)
        by_query = by_key = by_value = 0.0
        for mine in heads:
            query_, key_, mixed_ = (_only(mine, part) for part in (query, key, mixed))
            weights, total = _weights(query_, key, keys, scale)
            weights = weights / total
            moves = product(mixed_, value, (1, 1))
            moves = weights * (moves - (weights * moves).sum(1, keepdims=True)) * scale
            weights, moves = weights.astype(dtype), moves.astype(dtype)
            by_value += product(weights, mixed_, (0, 0))
            by_query += product(moves, key_, (1, 0))
            by_key += product(moves, query_, (0, 0))
        for part, found in enumerate((by_query, by_key, by_value)):
            answers[:size, pl.ds(part * dim + column, width)] = found.astype(dtype)

    _by_columns(dim, num_heads, treat, unrolled=False)  # a loop compiles faster


def _parts(joined, column, width: int) -> list[Array]:
    """Queries, keys and values in some columns, of the rows of an image."""
    dim = joined.shape[1] // 3
    return [joined[:, pl.ds(part * dim + column, width)] for part in range(3)]
