"""Where the tokens of a batch lie in a buffer of rows, and rows moved from one buffer to another.

Buffers have as many rows as the program says, whatever the data: no loop and no branch depends on
them. Every move is a gather whose gradient is a gather, too, because a layout knows both ways; XLA
would scatter and add, which accelerators do slowly. Where images begin at multiples of
`image_rows.ALIGN` (`aligned`), kernels of a TPU's move rows instead.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from avit_jax.execution.gathered_rows import gather, masked
from avit_jax.execution.packing import Packing, live_first
from avit_jax.models import image_rows
from avit_jax.models.moved_rows import move


@struct.dataclass(kw_only=True)
class Layout:
    """Which token each of `R` rows holds, and in which row each token of `[B, N]` lies.

    Attributes:
        image: `[R]` int32; anything valid where the row holds nothing.
        token: `[R]` int32, counted within the image; likewise.
        exists: `[R]` bool, whether the row holds a token.
        place: `[B, N]` int32, row of each token; anything valid where it has none.
        held: `[B, N]` bool, whether the token has a row.
        whole: whether it is that of `every_token`.
        aligned: first row and number of rows of each image, `[B]` int32 each, where images begin at
            multiples of `image_rows.ALIGN`, and between them there may be rows that hold nothing.
    """

    image: Array
    token: Array
    exists: Array
    place: Array
    held: Array
    whole: bool = struct.field(pytree_node=False, default=False)
    aligned: tuple[Array, Array] | None = None

    @property
    def rows(self) -> int:
        """Number of rows, whether they hold anything or not."""
        return len(self.image)


def every_token(batch: int, num_tokens: int, *, aligned: bool = False) -> Layout:
    """All tokens of all images, one image after the other."""
    length = image_rows.aligned(num_tokens) if aligned else num_tokens
    row = np.arange(batch * length, dtype=np.int32)
    image, token = np.divmod(row, length)
    lengths = jnp.full(batch, num_tokens, jnp.int32)
    return Layout(
        image=jnp.asarray(image),
        token=jnp.asarray(np.minimum(token, num_tokens - 1)),
        exists=jnp.asarray(token < num_tokens),
        place=jnp.asarray(row.reshape(batch, length)[:, :num_tokens]),
        held=jnp.ones((batch, num_tokens), bool),
        whole=True,
        aligned=(jnp.asarray(row[::length]), lengths) if aligned else None,
    )


def whole_rows(tokens: Array, layout: Layout) -> Array:
    """Tokens `[B, N, D]` as rows `[R, D]` of a layout of `every_token`."""
    between = layout.rows // len(tokens) - tokens.shape[1]
    return jnp.pad(tokens, ((0, 0), (0, between), (0, 0))).reshape(layout.rows, -1)


def packed(packing: Packing, capacity: int, *, aligned: bool = False) -> Layout:
    """Live tokens as the first rows of a buffer; those that find no place are not held.

    Args:
        packing: of the tokens; its images begin at multiples of `image_rows.ALIGN` if `aligned`.
        capacity: rows of the buffer.
        aligned: whether the layout is to say where images lie.
    """
    image, token = packing.tokens(capacity)
    row = jnp.arange(capacity, dtype=jnp.int32)
    place = packing.rows()
    if aligned:
        begins = packing.offsets <= row[:, None]
        exists = (begins & (row[:, None] < packing.offsets + packing.counts)).any(1)
    else:
        exists = (row < packing.total) & packing.live[image, token]
    return Layout(
        image=image,
        token=token,
        exists=exists,
        place=jnp.clip(place, 0, capacity - 1),
        held=packing.live & (place < capacity),
        aligned=(packing.offsets, packing.counts) if aligned else None,
    )


def square(live: Array, length: int) -> Layout:
    """Live tokens of each image in front of `length` rows of its own; more than that are not held.

    Args:
        live: `[B, N]` bool.
        length: rows of an image.
    """
    batch = len(live)
    image, slot = np.divmod(np.arange(batch * length, dtype=np.int32), length)
    slots = live_first(live)
    slots = jnp.pad(slots[:, :length], ((0, 0), (0, max(0, length - live.shape[1]))))
    rank = jnp.cumsum(live, axis=1, dtype=jnp.int32) - 1
    first = jnp.arange(batch, dtype=jnp.int32)[:, None] * length
    return Layout(
        image=jnp.asarray(image),
        token=slots.reshape(-1),
        exists=(jnp.asarray(slot).reshape(batch, length) < live.sum(1)[:, None]).reshape(-1),
        place=first + jnp.clip(rank, 0, length - 1),
        held=live & (rank < length),
    )


def moved(rows: Array, before: Layout, after: Layout) -> Array:
    """Rows `[before.rows, ...]` as they lie in another layout, 0 where that holds nothing.

    Tokens that `before` does not hold come out as 0, too. Where both are `aligned`, those that
    `after` holds keep their order, and rows are `[before.rows, D]`.
    """
    if before.aligned is not None and after.aligned is not None:
        stay = _by_slot(after.held, before)
        targets = jnp.where(stay, jnp.cumsum(stay, axis=1, dtype=jnp.int32) - 1, -1)
        there = move(rows, targets, before.aligned, after.aligned, after.rows)
        return masked(there, after.exists)
    source = before.place[after.image, after.token]
    found = after.exists & before.held[after.image, after.token]
    target = after.place[before.image, before.token]
    kept = before.exists & after.held[before.image, before.token]
    return gather(rows, source, found, target, kept)


def as_tokens(rows: Array, layout: Layout) -> Array:
    """Rows `[R, ...]` at their tokens' places, `[B, N, ...]`, 0 for tokens without a row."""
    batch, num_tokens = layout.held.shape
    if layout.whole:
        return rows.reshape(batch, -1, *rows.shape[1:])[:, :num_tokens]
    if layout.aligned is not None and rows.ndim == 1:
        return _values_of_tokens(rows, layout)
    target = layout.image * num_tokens + layout.token
    tokens = gather(rows, layout.place.reshape(-1), layout.held.reshape(-1), target, layout.exists)
    return tokens.reshape(batch, num_tokens, *rows.shape[1:])


def front_tokens(rows: Array, layout: Layout, count: int) -> Array:
    """The first `count` tokens of each image, `[B, count, ...]`, 0 for those without a row."""
    batch = len(layout.held)
    if layout.whole:
        return rows.reshape(batch, -1, *rows.shape[1:])[:, :count]
    is_front = layout.exists & (layout.token < count)
    target = jnp.where(is_front, layout.image * count + layout.token, 0)
    place, held = layout.place[:, :count].reshape(-1), layout.held[:, :count].reshape(-1)
    return gather(rows, place, held, target, is_front).reshape(batch, count, *rows.shape[1:])


def as_rows(tokens: Array, layout: Layout) -> Array:
    """Tokens `[B, N, ...]` as rows `[R, ...]`, 0 where a row holds nothing."""
    source = layout.image * tokens.shape[1] + layout.token
    flat = tokens.reshape(-1, *tokens.shape[2:])
    return gather(flat, source, layout.exists, layout.place.reshape(-1), layout.held.reshape(-1))


def holding(tokens: Array, layout: Layout) -> Array:
    """Which rows hold one of some tokens `[B, N]` bool, all of which have a row; `[R]` bool."""
    if layout.whole:
        return whole_rows(tokens[:, :, None], layout)[:, 0]
    return layout.exists & tokens[layout.image, layout.token]


def slots(layout: Layout) -> tuple[Array, Array]:
    """Of an aligned layout, which row of its image each token is, `[B, N, 1]`, and `[n]` rows."""
    slot = (layout.place - layout.aligned[0][:, None])[:, :, None]
    return slot, jnp.arange(image_rows.aligned(layout.held.shape[1]), dtype=jnp.int32)


def _by_slot(tokens: Array, layout: Layout) -> Array:
    """Which of an image's rows hold one of some tokens `[B, N]` bool; `[B, n]` bool.

    Comparing every token with every row vectorises, and XLA keeps none of the comparisons.
    """
    slot, rows = slots(layout)
    return ((slot == rows) & (tokens & layout.held)[:, :, None]).any(1)


def _values_of_tokens(values: Array, layout: Layout) -> Array:
    """`as_tokens` of one value a row, `[R]`, in an aligned layout, without a gather of numbers."""
    slot, rows = slots(layout)
    tiles = values.reshape(-1, image_rows.ALIGN)
    first = layout.aligned[0] // image_rows.ALIGN
    which = first[:, None] + jnp.arange(len(rows) // image_rows.ALIGN)
    of_image = tiles.at[which].get(mode="clip").reshape(len(first), 1, -1)
    return jnp.where((slot == rows) & layout.held[:, :, None], of_image, 0).sum(2)
