"""Where the tokens of a batch lie in a buffer of rows, and rows moved from one buffer to another.

Buffers have as many rows as the program says, whatever the data: no loop and no branch depends on
them. Every move is a gather whose gradient is a gather, too, because a layout knows both ways; XLA
would scatter and add, which accelerators do slowly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from avit_jax.execution.packing import Packing, live_first


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
    """

    image: Array
    token: Array
    exists: Array
    place: Array
    held: Array
    whole: bool = struct.field(pytree_node=False, default=False)

    @property
    def rows(self) -> int:
        """Number of rows, whether they hold anything or not."""
        return len(self.image)


def every_token(batch: int, num_tokens: int) -> Layout:
    """All tokens of all images, one image after the other."""
    image, token = np.divmod(np.arange(batch * num_tokens, dtype=np.int32), num_tokens)
    return Layout(
        image=jnp.asarray(image),
        token=jnp.asarray(token),
        exists=jnp.ones(len(image), bool),
        place=jnp.arange(len(image), dtype=jnp.int32).reshape(batch, num_tokens),
        held=jnp.ones((batch, num_tokens), bool),
        whole=True,
    )


def packed(packing: Packing, capacity: int) -> Layout:
    """Live tokens as the first rows of a buffer; those that find no place are not held."""
    image, token = packing.tokens(capacity)
    row = jnp.arange(capacity, dtype=jnp.int32)
    place = packing.rows()
    return Layout(
        image=image,
        token=token,
        exists=(row < packing.total) & packing.live[image, token],
        place=jnp.clip(place, 0, capacity - 1),
        held=packing.live & (place < capacity),
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

    Tokens that `before` does not hold come out as 0, too.
    """
    source = before.place[after.image, after.token]
    found = after.exists & before.held[after.image, after.token]
    target = after.place[before.image, before.token]
    kept = before.exists & after.held[before.image, before.token]
    return _gather(rows, source, found, target, kept)


def as_tokens(rows: Array, layout: Layout) -> Array:
    """Rows `[R, ...]` at their tokens' places, `[B, N, ...]`, 0 for tokens without a row."""
    batch, num_tokens = layout.held.shape
    target = layout.image * num_tokens + layout.token
    tokens = _gather(rows, layout.place.reshape(-1), layout.held.reshape(-1), target, layout.exists)
    return tokens.reshape(batch, num_tokens, *rows.shape[1:])


def front_tokens(rows: Array, layout: Layout, count: int) -> Array:
    """The first `count` tokens of each image, `[B, count, ...]`, 0 for those without a row."""
    batch = len(layout.held)
    is_front = layout.exists & (layout.token < count)
    target = jnp.where(is_front, layout.image * count + layout.token, 0)
    place, held = layout.place[:, :count].reshape(-1), layout.held[:, :count].reshape(-1)
    return _gather(rows, place, held, target, is_front).reshape(batch, count, *rows.shape[1:])


def as_rows(tokens: Array, layout: Layout) -> Array:
    """Tokens `[B, N, ...]` as rows `[R, ...]`, 0 where a row holds nothing."""
    source = layout.image * tokens.shape[1] + layout.token
    flat = tokens.reshape(-1, *tokens.shape[2:])
    return _gather(flat, source, layout.exists, layout.place.reshape(-1), layout.held.reshape(-1))


@jax.custom_vjp
def _gather(rows: Array, source: Array, found: Array, target: Array, kept: Array) -> Array:
    """`rows[source]` where `found`, else 0; `target` and `kept` are the way back."""
    return _masked(rows[source], found)


def _forward(rows: Array, source: Array, found: Array, target: Array, kept: Array):
    return _gather(rows, source, found, target, kept), (target, kept)


def _backward(way_back: tuple[Array, Array], gradient: Array):
    target, kept = way_back
    return _masked(gradient[target], kept), None, None, None, None


_gather.defvjp(_forward, _backward)


def _masked(rows: Array, exists: Array) -> Array:
    return jnp.where(exists.reshape(-1, *(1,) * (rows.ndim - 1)), rows, 0)
