"""The halves of a block on rows: live tokens of a whole batch in buffers of fixed capacity.

For policies that choose tokens, heads and halves anew in every block. Tokens keep their places
`[B, N, D]`; each half gathers its live ones into rows, masks dropped heads in them, and the updates
go back to where the tokens are. Where a buffer holds every token, nothing moves, and the half runs
whole under its gates. Which of both is no question of data.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.execution import row_block
from avit_jax.execution.layout import Layout, as_rows, as_tokens, every_token, packed, square
from avit_jax.execution.packed_halves import mlp_update
from avit_jax.execution.packing import pack
from avit_jax.models.attention import without_dropped_heads
from avit_jax.models.block import Block
from avit_jax.models.norms import Statistics, is_over_tokens, normalised, statistics
from avit_jax.types import Gates


def rows_of(live: Array, capacity: int) -> Layout:
    """Live tokens `[B, N]` in a buffer; every token of all images if it has as many rows."""
    if capacity >= live.size:
        return every_token(*live.shape)
    return packed(pack(live), capacity)


def attend(
    block: Block, tokens: Array, layout: Layout, live: Array, *, gates: Gates, normed: Array
) -> Array:
    """Tokens `[B, N, D]` with the updates of the attention half added.

    Args:
        block: with its parameters.
        tokens: all of them.
        layout: of this half's rows.
        live: `[B, N]` bool, tokens that are in this half: none of an image that skips it.
        gates: of this half; what it says of tokens and halves is in `live`, too.
        normed: tokens behind the half's norm, from which the policies have decided.
    """
    if layout.whole:
        return block.attend(tokens, gates=gates, normed=normed)
    attention = block.attention
    parts = attention.project(as_rows(normed, layout), layout.token)
    mixed = row_block.mix(attention, parts, layout, live)
    if gates.heads is not None:
        kept = _kept(gates, layout)
        mixed = without_dropped_heads(mixed, parts[2], kept, gates.head_effect)
    return tokens + as_tokens(attention.finish(mixed), layout)


def attend_last(
    block: Block,
    tokens: Array,
    layout: Layout,
    live: Array,
    *,
    gates: Gates,
    normed: Array,
    prefix: int,
) -> tuple[Array, Statistics | None]:
    """Prefix tokens `[B, prefix, D]` with the updates of the last block's attention half added.

    Arguments as of `attend`; all live tokens give keys and values. The statistics of the norm
    behind it come with them, for which all updates are needed.
    """
    if is_over_tokens(block.norm2):
        tokens = attend(block, tokens, layout, live, gates=gates, normed=normed)
        return tokens[:, :prefix], statistics(block.norm2, tokens)
    attention = block.attention
    if layout.whole:
        key, value = attention.keys_values(normed)
        keys = live
    else:
        grid = square(live, live.shape[1])
        joined = attention.join(*attention.keys_values(as_rows(normed, layout), layout.token))
        key, value = row_block.by_image(attention, joined, layout, grid)
        keys = jnp.arange(key.shape[1]) < live.sum(1)[:, None]
    mixed = attention.mix(attention.queries(normed[:, :prefix]), key, value, live=keys)
    if gates.heads is not None:
        kept = jnp.broadcast_to((gates.heads > 0)[:, None], mixed.shape[:-1])
        # Prefix tokens are never left out alone, so they stand in front of the live ones, too.
        mixed = without_dropped_heads(mixed, value[:, :prefix], kept, gates.head_effect)
    update = attention.finish(mixed)
    return tokens[:, :prefix] + jnp.where(live[:, :prefix, None], update, 0), None


def feed(
    block: Block,
    tokens: Array,
    layout: Layout,
    *,
    gates: Gates,
    known: Statistics | None = None,
) -> Array:
    """Tokens with the updates of the MLP half added; arguments as of `attend`.

    In the last block tokens are the prefix tokens alone, and `known` what `attend_last` says.
    """
    if layout.whole:
        return block.feed(tokens, gates=gates, statistics=known)
    kept = None if gates.heads is None else _kept(gates, layout)
    if is_over_tokens(block.norm2):  # of rows the statistics would have to be gathered as well
        known = known or statistics(block.norm2, tokens)
        normed = as_rows(normalised(block.norm2, tokens, known), layout)
    else:
        normed = block.norm2(as_rows(tokens, layout))
    update = mlp_update(block, normed, kept, gates.head_effect)
    return tokens + as_tokens(update, layout)


def _kept(gates: Gates, layout: Layout) -> Array:
    """Heads that each row's image keeps, `[R, H]` bool."""
    return (gates.heads > 0)[layout.image]
