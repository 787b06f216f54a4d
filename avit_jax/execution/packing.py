"""Live tokens of several images as the first rows of one buffer: pure functions on index arrays.

Rows are ordered by image, and within an image as its tokens are, prefix first. Behind the last live
row of the batch, and of each image where images begin at multiples of some number, a buffer holds
anything; nothing reads it.
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
        total: rows up to the last live one, rows between images included.
    """

    live: Array
    counts: Array
    offsets: Array
    total: Array

    def rows(self) -> Array:
        """`[B, N]` row of each token; meaningful where it is live."""
        return jnp.cumsum(self.live, axis=1, dtype=jnp.int32) - 1 + self.offsets[:, None]

    def tokens(self, capacity: int) -> tuple[Array, Array]:
        """Image and token of each row of a buffer, `[capacity]` each, int32.

        Rows behind the live ones get some valid image and token.
        """
        slots = live_first(self.live)
        row = jnp.arange(capacity, dtype=jnp.int32)
        image = ((self.offsets + self.counts)[None, :] <= row[:, None]).sum(1, dtype=jnp.int32)
        image = jnp.minimum(image, len(self.counts) - 1)
        return image, slots[image, jnp.clip(row - self.offsets[image], 0, slots.shape[1] - 1)]


def pack(live: Array, *, align: int = 1) -> Packing:
    """The packing of `live` tokens `[B, N]`; images begin at multiples of `align`."""
    counts = live.sum(1, dtype=jnp.int32)
    spans = -(-counts // align) * align
    offsets = jnp.cumsum(spans, dtype=jnp.int32) - spans
    return Packing(live=live, counts=counts, offsets=offsets, total=offsets[-1] + counts[-1])


def live_first(live: Array) -> Array:
    """Tokens of each image in order, `[B, N]` int32: the live ones, then any valid numbers."""
    num_tokens = live.shape[1]
    seen = jnp.cumsum(live, axis=1, dtype=jnp.int32)
    # The c-th live token: as many tokens lie before it as have seen at most c live ones. Counting
    # compares every slot with every token, which vectorises; a sort or scatter does not.
    slots = jnp.arange(num_tokens, dtype=jnp.int32)
    token = (seen[:, None, :] <= slots[None, :, None]).sum(-1, dtype=jnp.int32)
    return jnp.minimum(token, num_tokens - 1)


def moved_rows(after: Packing, before: Packing, capacity: int) -> tuple[Array, Array]:
    """Where each row of the new buffer lies in the old one, and which token of its image it is.

    Args:
        after: packing of the tokens that are still live, among those of `before`.
        before: packing of the buffer to read from.
        capacity: rows of the new buffer; those behind the live ones get some valid row.

    Returns:
        `[capacity]` int32 each.
    """
    image, token = after.tokens(capacity)
    return jnp.clip(before.rows()[image, token], 0, capacity - 1), token


def unpack(values: Array, packing: Packing) -> Array:
    """Per-row `values` `[capacity]` as `[B, N]`, with 0 for tokens that are not live."""
    rows = jnp.clip(packing.rows(), 0, values.shape[0] - 1)
    return jnp.where(packing.live, values[rows], jnp.zeros((), values.dtype))
