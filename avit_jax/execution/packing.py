"""Live tokens of several images as the first rows of one buffer: pure functions on index arrays.

Rows are ordered by image, and within an image as its tokens are, prefix first. Behind the last live
row a buffer holds anything; nothing reads it.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array


@struct.dataclass(kw_only=True)
class Packing:
    """Where the live tokens of `B` images lie.

    Attributes:
        live: `[B, N]` bool.
        counts: `[B]` live tokens of each image.
        offsets: `[B]` first row of each image.
        total: live rows in all.
    """

    live: Array
    counts: Array
    offsets: Array
    total: Array

    def positions(self) -> Array:
        """`[B, N]` row of each token; meaningful where it is live."""
        return jnp.cumsum(self.live, axis=1, dtype=jnp.int32) - 1 + self.offsets[:, None]


def pack(live: Array) -> Packing:
    """The packing of `live` tokens `[B, N]`."""
    counts = live.sum(1, dtype=jnp.int32)
    ends = jnp.cumsum(counts, dtype=jnp.int32)
    return Packing(live=live, counts=counts, offsets=ends - counts, total=ends[-1])


def source_rows(after: Packing, before: Packing, capacity: int) -> Array:
    """For each row of the new buffer its row in the old one, `[capacity]` int32.

    Args:
        after: packing of the tokens that are still live, among those of `before`.
        before: packing of the buffer to read from.
        capacity: rows of the new buffer; those behind the live ones get some valid row.
    """
    tokens = after.live.shape[1]
    seen = jnp.cumsum(after.live, axis=1, dtype=jnp.int32)
    # Token of an image's c-th row: as many tokens lie before it as have seen at most c live ones.
    # Counting compares every row with every token, which vectorises; a sort or scatter does not.
    slots = jnp.arange(tokens, dtype=jnp.int32)
    token = (seen[:, None, :] <= slots[None, :, None]).sum(-1, dtype=jnp.int32)
    rows_before = jnp.take_along_axis(before.positions(), jnp.minimum(token, tokens - 1), axis=1)
    row = jnp.arange(capacity, dtype=jnp.int32)
    ends = after.offsets + after.counts
    image = (ends[None, :] <= row[:, None]).sum(1, dtype=jnp.int32)
    image = jnp.minimum(image, len(ends) - 1)
    slot = jnp.clip(row - after.offsets[image], 0, tokens - 1)
    return jnp.clip(rows_before[image, slot], 0, capacity - 1)


def unpack(values: Array, packing: Packing) -> Array:
    """Per-row `values` `[capacity]` as `[B, N]`, with 0 for tokens that are not live."""
    rows = jnp.clip(packing.positions(), 0, values.shape[0] - 1)
    return jnp.where(packing.live, values[rows], jnp.zeros((), values.dtype))
