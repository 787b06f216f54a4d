"""One transformer block on rows: live tokens of a whole batch in a buffer of fixed capacity."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.execution.layout import Layout, front_tokens, moved, square
from avit_jax.models.attention import Attention
from avit_jax.models.block import Block


def run(block: Block, rows: Array, layout: Layout, live: Array) -> Array:
    """The block on all rows `[R, D]`; only those of live tokens mean anything afterwards.

    Args:
        block: with its parameters.
        rows: in front of it.
        layout: of the rows.
        live: `[B, N]` bool, tokens that are attended to; all have a row.
    """
    attention = block.attention
    parts = attention.project(block.norm1(rows), layout.token)
    mixed = mix(attention, parts, layout, live)
    return block.feed((rows + attention.finish(mixed))[None])[0]


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
    if layout.whole and not attention.fused:  # a mask is cheaper than moving, then
        query, key, value = (part.reshape(*live.shape, *size) for part in parts)
        return attention.mix(query, key, value, live=live).reshape(layout.rows, *size)
    grid = square(live, attention.places(live.shape[1]))
    query, key, value = by_image(attention, attention.join(*parts), layout, grid)
    mixed = attention.mix(query, key, value, lengths=live.sum(1))
    return moved(mixed.reshape(grid.rows, *size), grid, layout)


def run_last(block: Block, rows: Array, layout: Layout, live: Array, *, prefix: int) -> Array:
    """The prefix tokens `[B, prefix, D]` behind the last block; those not live mean nothing.

    All live tokens give keys and values; queries, projection and MLP are those of the prefix.
    """
    attention = block.attention
    front, normed = front_tokens(rows, layout, prefix), block.norm1(rows)
    grid = square(live, attention.places(live.shape[1]))
    joined = attention.join(*attention.keys_values(normed, layout.token))
    key, value = by_image(attention, joined, layout, grid)
    query = attention.queries(block.norm1(front))
    mixed = attention.mix(query, key, value, live=jnp.arange(key.shape[1]) < live.sum(1)[:, None])
    return block.feed(front + attention.finish(mixed))


def by_image(attention: Attention, joined: Array, layout: Layout, grid: Layout) -> list[Array]:
    """Parts side by side `[R, parts * D]` as `[B, length, H, d]` each, live tokens in front."""
    moved_rows = moved(joined, layout, grid)
    return attention.split(moved_rows.reshape(len(layout.held), -1, joined.shape[1]))
