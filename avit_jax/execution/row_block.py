"""One transformer block on rows: live tokens of a whole batch in a buffer of fixed capacity."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx, struct
from jax import Array

from avit_jax.execution.layout import (
    Layout,
    as_rows,
    as_tokens,
    front_tokens,
    holding,
    moved,
    square,
    whole_rows,
)
from avit_jax.models import ragged_attention, row_norm
from avit_jax.models.attention import Attention
from avit_jax.models.block import Block
from avit_jax.models.layers import Mlp, drop_path
from avit_jax.models.norms import is_over_tokens, normalised, of_images, statistics


@struct.dataclass(kw_only=True)
class StochasticDepth:
    """Which images of a batch keep the updates of a block.

    Attributes:
        kept: `[2, B]` bool, of the attention half and of the MLP half, see `block.kept_updates`.
        rate: float32, the block's; with what probability an update is dropped.
    """

    kept: Array
    rate: Array

    def __call__(self, update: Array, half: int, image: Array) -> Array:
        """An update `[..., D]` of rows of the given images `[...]`, or 0 in its place."""
        return drop_path(update, self.rate, self.kept[half][image][..., None])


def run(
    block: Block, rows: Array, layout: Layout, live: Array, depth: StochasticDepth | None = None
) -> Array:
    """The block on all rows `[R, D]`; only those of live tokens mean anything afterwards.

    Args:
        block: with its parameters.
        rows: in front of it.
        layout: of the rows.
        live: `[B, N]` bool, tokens that are attended to; all have a row.
        depth: draws of a training with stochastic depth.
    """
    update = _attended(block, rows, layout, live)
    norm = _of_layout(block.norm2, layout, live)
    return _updated(block.mlp, norm, rows, update, layout.image, depth)


def _attended(block: Block, rows: Array, layout: Layout, live: Array) -> Array:
    """The update of the attention half, `[R, D]`."""
    normed = _of_layout(block.norm1, layout, live)(rows)
    parts = block.attention.project(normed, layout.token)
    return block.attention.finish(mix(block.attention, parts, layout, live))


def _of_layout(norm: nnx.Module, layout: Layout, live: Array) -> Callable[[Array], Array]:
    """A norm as a function of rows `[R, D]`.

    One over an image's tokens is one of tokens at their places, so that it has neither a scatter
    nor a loop, and its gradient neither.
    """
    if is_over_tokens(norm):
        back = whole_rows if layout.whole else as_rows
        return lambda rows: back(of_images(norm, as_tokens(rows, layout), live), layout)
    return norm if layout.aligned is None else lambda rows: row_norm.normalised(norm, rows)


def _updated(
    mlp: Mlp,
    norm: Callable[[Array], Array],
    rows: Array,
    update: Array,
    image: Array,
    depth: StochasticDepth | None,
) -> Array:
    """Rows `[..., D]` with the update of the attention half, and behind the MLP half."""
    rows = _with_update(rows, update, 0, image, depth)
    return _with_update(rows, mlp(norm(rows)), 1, image, depth)


def _with_update(
    rows: Array, update: Array, half: int, image: Array, depth: StochasticDepth | None
) -> Array:
    return rows + (update if depth is None else depth(update, half, image))


def mix(
    attention: Attention, parts: tuple[Array, Array, Array], layout: Layout, live: Array
) -> Array:
    """What attention mixes for each row, `[R, H, d]`.

    Args:
        attention: with its parameters.
        parts: queries, keys and values of the rows, `[R, H, d]` each.
        layout: of the rows.
        live: `[B, N]` bool, tokens that are attended to; all have a row.
    """
    size = parts[0].shape[1:]
    if layout.aligned is not None:
        return where_they_lie(attention, parts, layout, live).reshape(layout.rows, *size)
    if layout.whole and not attention.fused:  # a mask is cheaper than moving, then
        query, key, value = (part.reshape(*live.shape, *size) for part in parts)
        return attention.mix(query, key, value, live=live).reshape(layout.rows, *size)
    grid = square(live, attention.places(live.shape[1]))
    query, key, value = by_image(attention, attention.join(*parts), layout, grid)
    mixed = attention.mix(query, key, value, lengths=live.sum(1))
    return moved(mixed.reshape(grid.rows, *size), grid, layout)


def run_last(
    block: Block,
    rows: Array,
    layout: Layout,
    live: Array,
    *,
    prefix: int,
    depth: StochasticDepth | None = None,
) -> Array:
    """The prefix tokens `[B, prefix, D]` behind the last block; those not live mean nothing.

    All live tokens give keys and values; queries, projection and MLP are those of the prefix. A
    norm over an image's tokens asks for the whole attention half.
    """
    attention = block.attention
    if is_over_tokens(block.norm2):
        rows = _with_update(rows, _attended(block, rows, layout, live), 0, layout.image, depth)
        tokens = as_tokens(rows, layout)
        front, known = tokens[:, :prefix], statistics(block.norm2, tokens, live)
        update = block.mlp(normalised(block.norm2, front, known))
        return _with_update(front, update, 1, _images(front), depth)
    front = front_tokens(rows, layout, prefix)
    if layout.aligned is not None:
        parts = attention.project(row_norm.normalised(block.norm1, rows), layout.token)
        mixed = where_they_lie(attention, parts, layout, live, front=prefix)
        (mixed,) = attention.split(front_tokens(mixed, layout, prefix))
    else:
        normed = block.norm1(rows)
        grid = square(live, attention.places(live.shape[1]))
        joined = attention.join(*attention.keys_values(normed, layout.token))
        key, value = by_image(attention, joined, layout, grid)
        query, keys = attention.queries(block.norm1(front)), jnp.arange(key.shape[1])
        mixed = attention.mix(query, key, value, live=keys < live.sum(1)[:, None])
    image = _images(front)
    return _updated(block.mlp, block.norm2, front, attention.finish(mixed), image, depth)


def _images(front: Array) -> Array:
    """The image of each of `[B, prefix, D]`."""
    return jnp.broadcast_to(jnp.arange(len(front))[:, None], front.shape[:2])


def where_they_lie(
    attention: Attention,
    parts: tuple[Array, Array, Array],
    layout: Layout,
    live: Array,
    *,
    front: int | None = None,
) -> Array:
    """What attention mixes for each row of an aligned layout, `[R, D]`, by a kernel.

    Args:
        attention: with its parameters.
        parts: queries, keys and values of the rows, `[R, H, d]` each.
        layout: of the rows.
        live: `[B, N]` bool, tokens that are attended to; all rows unless the layout is whole.
        front: only so many tokens of each image are wanted; of the others rows mean nothing.
    """
    starts, lengths = layout.aligned
    if layout.whole:  # images without a live token cost nothing
        lengths = jnp.where(live.any(1), lengths, 0)
    mixed = ragged_attention.mix(
        attention.join(*parts),
        starts,
        lengths,
        num_heads=attention.num_heads,
        longest=live.shape[1],
        live=live if layout.whole else None,
        scale=attention.scale,
        front=front,
    )
    runs = holding(live, layout) if layout.whole else layout.exists
    return jnp.where(runs[:, None], mixed, 0)


def by_image(attention: Attention, joined: Array, layout: Layout, grid: Layout) -> list[Array]:
    """Parts side by side `[R, parts * D]` as `[B, length, H, d]` each, live tokens in front."""
    moved_rows = moved(joined, layout, grid)
    return attention.split(moved_rows.reshape(len(layout.held), -1, joined.shape[1]))
