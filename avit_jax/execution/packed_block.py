"""One transformer block on packed tokens: what `Block` does, on live rows only."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.typing import DTypeLike

from avit_jax.execution.between_exits import NOTHING, Given, put_back, with_scores
from avit_jax.execution.loops import for_images, for_rows
from avit_jax.execution.packed_statistics import of_packed, of_rows
from avit_jax.execution.packing import Packing, moved_rows
from avit_jax.execution.plan import Plan
from avit_jax.models.block import Block
from avit_jax.models.norms import Statistics, is_over_tokens, normalised


@struct.dataclass(kw_only=True)
class Buffers:
    """Rows of tokens and the scratch space of a block, kept from layer to layer.

    Attributes:
        tokens: `[capacity, D]`, live rows first, see `packing.py`.
        projected: `[capacity, 3 D]`, query, key and value.
        mixed: `[capacity, D]`, attention's mixed values.
        relations: `[L, B, H, N, N]`, scores of the blocks so far, 0 where a token did not run;
            `None` where nobody wants them.
    """

    tokens: Array
    projected: Array
    mixed: Array
    relations: Array | None = None


def start(
    tokens: Array, plan: Plan, *, dtype: DTypeLike, relations: Array | None = None
) -> Buffers:
    """Buffers that hold all tokens `[B, N, D]`; `dtype` is that of the block's arithmetic."""
    batch, length, dim = tokens.shape
    # Blocks and images are read at their full static size, also behind the last live row.
    spare_rows = plan.row_sizes[-1] + plan.lengths[-1]
    rows = jnp.pad(tokens.reshape(batch * length, dim), ((0, spare_rows), (0, 0)))
    return Buffers(
        tokens=rows,
        projected=jnp.zeros((rows.shape[0], 3 * dim), dtype),
        mixed=jnp.zeros(rows.shape, dtype),
        relations=relations,
    )


def run(
    block: Block,
    buffers: Buffers,
    before: Packing,
    after: Packing,
    plan: Plan,
    given: Given = NOTHING,
) -> Buffers:
    """The block on the tokens of `after`, whose rows it first moves to the front.

    Rows only move forward and blocks of rows are treated from the front, so they move in place.

    Args:
        block: with its parameters.
        buffers: as the layer before left them, packed by `before`.
        before: packing of `buffers.tokens`.
        after: packing of the tokens that this layer treats, a part of those of `before`.
        plan: static sizes.
        given: to the block, by an earlier exit.
    """
    buffers, attention = _mixed(block, buffers, before, after, plan, given), block.attention
    capacity, known, image = len(buffers.tokens), None, None
    if is_over_tokens(block.norm2):
        buffers, known = _with_updates(block, buffers, after, plan)
        image, _ = after.tokens(capacity)

    def feed(first: Array, size: int, tokens: Array) -> Array:
        if known is None:
            (rows,) = attention.split(read(buffers.mixed, first, size))
            rows = read(tokens, first, size) + attention.finish(rows)
        else:
            rows = read(tokens, first, size)
        extra = None
        if given.extra is not None:
            own = (lax.dynamic_slice(part, (first,), (size,)) for part in after.tokens(capacity))
            extra = given.of_rows(*own)[None]
        of_own = of_rows(known, image, first, size)
        return write(tokens, block.feed(rows[None], extra=extra, statistics=of_own)[0], first)

    return buffers.replace(tokens=for_rows(feed, after.total, buffers.tokens, plan))


def _mixed(
    block: Block, buffers: Buffers, before: Packing, after: Packing, plan: Plan, given: Given
) -> Buffers:
    """Buffers behind attention, without its updates; arguments as of `run`."""
    attention, (capacity, dim) = block.attention, buffers.tokens.shape
    source, positions = moved_rows(after, before, capacity)
    known = of_packed(block.norm1, lambda rows: buffers.tokens[source[rows]], dim, after, plan)
    image = after.tokens(capacity)[0] if known else None

    def project(first: Array, size: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, projected = carry
        rows = tokens[lax.dynamic_slice(source, (first,), (size,))]
        normed = normalised(block.norm1, rows, of_rows(known, image, first, size))
        parts = attention.project(normed, lax.dynamic_slice(positions, (first,), (size,)))
        return write(tokens, rows, first), write(projected, attention.join(*parts), first)

    def attend(
        images: Array, firsts: Array, length: int, carry: tuple[Array, Array | None]
    ) -> tuple[Array, Array | None]:
        mixed, relations = carry
        query, key, value = attention.split(gather(projected, firsts, length))
        live = jnp.arange(length) < after.counts[images][:, None]
        bias = None
        if given.bias is not None:
            own = positions[firsts[:, None] + jnp.arange(length, dtype=firsts.dtype)]
            bias = given.of_pairs(images, own, own)
        answer = attention.join(attention.mix(query, key, value, live=live, bias=bias))
        for first, update, exists in zip(firsts, answer, live, strict=True):
            old = lax.dynamic_slice(mixed, corner(first), update.shape)
            mixed = write(mixed, jnp.where(exists[:, None], update, old), first)
        if relations is not None:
            rows = after.rows()[images] - after.offsets[images][:, None]
            scores = put_back(attention.scores(query, key, bias), rows, after.live[images])
            for image, whole in zip(images, scores, strict=True):
                relations = with_scores(relations, whole[None], given.layer, image)
        return mixed, relations

    tokens, projected = for_rows(project, after.total, (buffers.tokens, buffers.projected), plan)
    carry = buffers.mixed, buffers.relations
    mixed, relations = for_images(attend, after.counts, after.offsets, carry, plan)
    return Buffers(tokens=tokens, projected=projected, mixed=mixed, relations=relations)


def _with_updates(
    block: Block, buffers: Buffers, packing: Packing, plan: Plan
) -> tuple[Buffers, Statistics]:
    """Buffers with the updates of the attention half, and what the norm behind it has to know."""
    attention = block.attention

    def add(first: Array, size: int, tokens: Array) -> Array:
        (mixed,) = attention.split(read(buffers.mixed, first, size))
        return write(tokens, read(tokens, first, size) + attention.finish(mixed), first)

    tokens = for_rows(add, packing.total, buffers.tokens, plan)
    known = of_packed(block.norm2, lambda rows: tokens[rows], tokens.shape[1], packing, plan)
    return buffers.replace(tokens=tokens), known


def run_last(
    block: Block,
    buffers: Buffers,
    before: Packing,
    after: Packing,
    plan: Plan,
    given: Given = NOTHING,
    *,
    prefix: int,
) -> Array:
    """The last block, of which only the prefix tokens are wanted: `[B, prefix, D]`.

    All live tokens give keys and values; queries, projection and MLP are those of the prefix. A
    norm over an image's tokens asks for the whole attention half. Rows of prefix tokens that are
    not live are meaningless.
    """
    if is_over_tokens(block.norm2):
        buffers = _mixed(block, buffers, before, after, plan, given)
        buffers, known = _with_updates(block, buffers, after, plan)
        rows = jnp.clip(after.rows()[:, :prefix], 0, len(buffers.tokens) - 1)
        return block.feed(buffers.tokens[rows], statistics=known)
    source, positions = moved_rows(after, before, buffers.tokens.shape[0])
    rows = jnp.clip(before.rows()[:, :prefix], 0, len(source) - 1)
    tokens = buffers.tokens[rows]
    mixed = mix_for_prefix(
        block, tokens, buffers.tokens, source, positions, after, buffers.projected, plan, given
    )
    extra = given.of_prefix(prefix)
    return block.feed(tokens + block.attention.finish(mixed), extra=extra)


def mix_for_prefix(
    block: Block,
    prefix: Array,
    tokens: Array,
    source: Array,
    positions: Array,
    packing: Packing,
    space: Array,
    plan: Plan,
    given: Given = NOTHING,
) -> Array:
    """What attention mixes for the prefix tokens alone, `[B, prefix, H, d]`.

    Args:
        block: with its parameters.
        prefix: prefix tokens `[B, prefix, D]` in front of the block.
        tokens: `[rows, D]` in front of the block.
        source: `[capacity]`, which of `tokens` each packed row is.
        positions: `[capacity]`, which token of its image each packed row is.
        packing: of the live tokens.
        space: scratch `[capacity, >= 2 D]`.
        plan: static sizes.
        given: to the block, by an earlier exit.
    """
    attention, dim, count = block.attention, tokens.shape[1], prefix.shape[1]
    query = attention.queries(block.norm1(prefix))

    def project(first: Array, size: int, projected: Array) -> Array:
        chosen, places = (
            lax.dynamic_slice(part, (first,), (size,)) for part in (source, positions)
        )
        parts = attention.keys_values(block.norm1(tokens[chosen]), places)
        return write(projected, attention.join(*parts), first)

    def attend(images: Array, firsts: Array, length: int, mixed: Array) -> Array:
        key, value = attention.split(gather(projected, firsts, length))
        live = jnp.arange(length) < packing.counts[images][:, None]
        bias = None
        if given.bias is not None:
            own = positions[firsts[:, None] + jnp.arange(length, dtype=firsts.dtype)]
            first_ones = jnp.broadcast_to(jnp.arange(count), (len(images), count))
            bias = given.of_pairs(images, first_ones, own)
        answer = attention.mix(query[images], key, value, live=live, bias=bias)
        return mixed.at[images].set(answer)

    projected = for_rows(project, packing.total, space[:, : 2 * dim], plan)
    return for_images(attend, packing.counts, packing.offsets, jnp.zeros_like(query), plan)


def gather(rows: Array, firsts: Array, length: int) -> Array:
    """The rows of some images, `[images, length, ...]`, with others' rows behind shorter ones."""
    return jnp.stack([read(rows, first, length) for first in firsts])


def read(rows: Array, first: Array, size: int) -> Array:
    """`size` rows from `first` on."""
    return lax.dynamic_slice(rows, corner(first), (size, rows.shape[1]))


def write(rows: Array, update: Array, first: Array) -> Array:
    """Rows with some of them replaced, from `first` on."""
    return lax.dynamic_update_slice(rows, update.astype(rows.dtype), corner(first))


def corner(first: Array, column: Array | int = 0) -> tuple[Array, Array]:
    """Where a slice begins, in numbers of one type: a plain 0 is int64 under JAX_ENABLE_X64."""
    return first, jnp.full_like(first, column)
