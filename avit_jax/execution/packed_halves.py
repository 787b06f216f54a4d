"""The halves of a block on packed tokens that come from, and go back to, places of their own.

For policies that choose tokens, heads and halves anew in every block: live rows of all images are
gathered into one buffer, so that the products are large, and dropped heads are masked in them. Only
attention itself leaves dropped heads out. A norm over an image's tokens counts all of them: those
that are left out are there for the next block, too.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from avit_jax.execution.loops import for_images, for_rows
from avit_jax.execution.packed_block import corner, mix_for_prefix, read, write
from avit_jax.execution.packed_statistics import of_rows
from avit_jax.execution.packing import Packing, pack
from avit_jax.execution.plan import Plan
from avit_jax.models.attention import without_dropped_heads
from avit_jax.models.block import Block
from avit_jax.models.layers import hidden_heads
from avit_jax.models.norms import Statistics, is_over_tokens, normalised, statistics


@struct.dataclass(kw_only=True)
class Space:
    """Scratch space that is kept from layer to layer; what lies in it means nothing.

    Attributes:
        projected: `[capacity, 3 D]`, query, key and value.
        mixed: `[capacity, D]`, attention's mixed values.
        updates: `[capacity, D]`.
    """

    projected: Array
    mixed: Array
    updates: Array


@struct.dataclass(kw_only=True)
class Rows:
    """Where the rows of one half come from.

    Attributes:
        packing: of the live tokens.
        image: `[capacity]`, image of each row.
        source: `[capacity]`, token of each row, counted over all images.
        positions: `[capacity]`, token of each row, counted in its image.
        kept: `[B, H]` bool, heads that each image keeps.
        heads: `[capacity, H]` bool, heads that the row's image keeps.
    """

    packing: Packing
    image: Array
    source: Array
    positions: Array
    kept: Array
    heads: Array


def start(tokens: Array, plan: Plan) -> Space:
    """Space for the tokens `[B, N, D]`."""
    batch, length, dim = tokens.shape
    # Blocks and images are read at their full static size, also behind the last live row.
    capacity = batch * length + plan.row_sizes[-1] + plan.lengths[-1]
    return Space(
        projected=jnp.zeros((capacity, 3 * dim), tokens.dtype),
        mixed=jnp.zeros((capacity, dim), tokens.dtype),
        updates=jnp.zeros((capacity, dim), tokens.dtype),
    )


def rows_of(live: Array, kept: Array, capacity: int) -> Rows:
    """The rows of live tokens `[B, N]`, whose images keep the heads `[B, H]`."""
    packing = pack(live)
    image, token = packing.tokens(capacity)
    return Rows(
        packing=packing,
        image=image,
        source=image * live.shape[1] + token,
        positions=token,
        kept=kept,
        heads=kept[image],
    )


def attend(
    block: Block, tokens: Array, space: Space, rows: Rows, plan: Plan, *, effect: str
) -> tuple[Array, Space]:
    """Tokens `[B, N, D]` with the updates of the attention half added.

    Args:
        block: with its parameters.
        tokens: all of them.
        space: scratch.
        rows: of this half.
        plan: static sizes.
        effect: what dropped heads take with them, see `types.HEAD_EFFECTS`.
    """
    attention, dim = block.attention, tokens.shape[-1]
    flat, num_heads = tokens.reshape(-1, dim), attention.num_heads
    width, known = dim // num_heads, statistics(block.norm1, tokens)

    def project(first: Array, size: int, projected: Array) -> Array:
        chosen, positions = (
            lax.dynamic_slice(part, (first,), (size,)) for part in (rows.source, rows.positions)
        )
        own = of_rows(known, rows.image, first, size)
        parts = attention.project(normalised(block.norm1, flat[chosen], own), positions)
        return write(projected, attention.join(*parts), first)

    def mix(pairs: Array, firsts: Array, length: int, mixed: Array) -> Array:
        columns = pairs % num_heads * width

        def part(number: int) -> Array:  # query, key or value of each pair, [g, length, 1, d]
            starts = zip(firsts, columns + number * dim, strict=True)
            return jnp.stack(
                [lax.dynamic_slice(projected, corner(*start), (length, width)) for start in starts]
            )[:, :, None]

        live = jnp.arange(length) < counts[pairs][:, None]
        answer = attention.mix(part(0), part(1), part(2), live=live)[:, :, 0]
        for first, column, update, exists in zip(firsts, columns, answer, live, strict=True):
            old = lax.dynamic_slice(mixed, corner(first, column), update.shape)
            new = jnp.where(exists[:, None], update, old)
            mixed = lax.dynamic_update_slice(mixed, new, corner(first, column))
        return mixed

    def finish(first: Array, size: int, updates: Array) -> Array:
        kept = lax.dynamic_slice(rows.heads, corner(first), (size, num_heads))
        (own,) = attention.split(read(mixed, first, size))
        value = attention.split(read(projected, first, size))[2]
        own = without_dropped_heads(own, value, kept, effect)
        return write(updates, attention.finish(own), first)

    projected = for_rows(project, rows.packing.total, space.projected, plan)
    # Every head of every image by itself, so that those that are dropped cost nothing.
    counts = jnp.where(rows.kept, rows.packing.counts[:, None], 0).reshape(-1)
    offsets = jnp.repeat(rows.packing.offsets, num_heads)
    mixed = for_images(mix, counts, offsets, space.mixed, plan)
    updates = for_rows(finish, rows.packing.total, space.updates, plan)
    space = Space(projected=projected, mixed=mixed, updates=updates)
    return _add(tokens, updates, rows.packing), space


def attend_last(
    block: Block,
    tokens: Array,
    space: Space,
    rows: Rows,
    plan: Plan,
    *,
    effect: str,
    prefix: int,
) -> tuple[Array, Statistics | None]:
    """Prefix tokens `[B, prefix, D]` with the updates of the last block's attention half added.

    Arguments as of `attend`; all live tokens give keys and values. The statistics of the norm
    behind it come with them, for which all updates are needed.
    """
    if is_over_tokens(block.norm2):
        tokens, _ = attend(block, tokens, space, rows, plan, effect=effect)
        return tokens[:, :prefix], statistics(block.norm2, tokens)
    attention, front = block.attention, tokens[:, :prefix]
    flat, source, positions = tokens.reshape(-1, tokens.shape[-1]), rows.source, rows.positions
    mixed = mix_for_prefix(
        block, front, flat, source, positions, rows.packing, space.projected, plan
    )
    value = attention.keys_values(block.norm1(front))[1] if effect == "attention" else mixed
    kept = jnp.broadcast_to(rows.kept[:, None], mixed.shape[:-1])
    update = attention.finish(without_dropped_heads(mixed, value, kept, effect))
    return front + jnp.where(rows.packing.live[:, :prefix, None], update, 0), None


def feed(
    block: Block, tokens: Array, space: Space, rows: Rows, plan: Plan, *, effect: str
) -> tuple[Array, Space]:
    """Tokens with the updates of the MLP half added; arguments as of `attend`."""
    flat, known = tokens.reshape(-1, tokens.shape[-1]), statistics(block.norm2, tokens)

    def treat(first: Array, size: int, updates: Array) -> Array:
        chosen = flat[lax.dynamic_slice(rows.source, (first,), (size,))]
        kept = lax.dynamic_slice(rows.heads, corner(first), (size, block.attention.num_heads))
        normed = normalised(block.norm2, chosen, of_rows(known, rows.image, first, size))
        return write(updates, mlp_update(block, normed, kept, effect), first)

    updates = for_rows(treat, rows.packing.total, space.updates, plan)
    return _add(tokens, updates, rows.packing), space.replace(updates=updates)


def mlp_update(block: Block, normed: Array, kept: Array | None, effect: str) -> Array:
    """What the MLP half adds to rows `[R, D]`, without the heads that each of them drops.

    Args:
        block: with its parameters.
        normed: rows behind the half's norm.
        kept: `[R, H]` bool, heads that the row's image keeps; all where `None`.
        effect: what dropped heads take with them, see `types.HEAD_EFFECTS`.
    """
    units = None
    if kept is not None and effect == "channels":
        cut = normed.reshape(*kept.shape, -1)
        normed = jnp.where(kept[:, :, None], cut, 0).reshape(normed.shape)
    elif kept is not None and effect == "hidden":
        units = kept[:, hidden_heads(block.mlp.fc1.out_features, kept.shape[1])]
    # Every row is an image of one token here: their factors differ.
    return block.mlp(normed[:, None], units=units)[:, 0]


def _add(tokens: Array, updates: Array, packing: Packing) -> Array:
    places = jnp.minimum(packing.rows(), len(updates) - 1)
    return tokens + jnp.where(packing.live[:, :, None], updates[places], 0)
