"""One transformer block on packed tokens: what `Block` does, on live rows only."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array, lax

from avit_jax.execution.loops import for_images, for_rows
from avit_jax.execution.packing import Packing, source_rows
from avit_jax.execution.plan import Plan
from avit_jax.models import attention
from avit_jax.models.layers import Attention, Block


@struct.dataclass(kw_only=True)
class Buffers:
    """Rows of tokens and the scratch space of a block, kept from layer to layer.

    Attributes:
        tokens: `[capacity, D]`, live rows first, see `packing.py`.
        projected: `[capacity, 3 D]`, query, key and value.
        mixed: `[capacity, D]`, attention's mixed values.
    """

    tokens: Array
    projected: Array
    mixed: Array


def start(tokens: Array, plan: Plan) -> Buffers:
    """Buffers that hold all tokens `[B, N, D]`."""
    batch, length, dim = tokens.shape
    # Blocks and images are read at their full static size, also behind the last live row.
    spare_rows = plan.row_sizes[-1] + plan.lengths[-1]
    rows = jnp.pad(tokens.reshape(batch * length, dim), ((0, spare_rows), (0, 0)))
    return Buffers(
        tokens=rows,
        projected=jnp.zeros((rows.shape[0], 3 * dim), rows.dtype),
        mixed=jnp.zeros_like(rows),
    )


def run(block: Block, buffers: Buffers, before: Packing, after: Packing, plan: Plan) -> Buffers:
    """The block on the tokens of `after`, whose rows it first moves to the front.

    Rows only move forward and blocks of rows are treated from the front, so they move in place.

    Args:
        block: with its parameters.
        buffers: as the layer before left them, packed by `before`.
        before: packing of `buffers.tokens`.
        after: packing of the tokens that this layer treats, a part of those of `before`.
        plan: static sizes.
    """
    source, scale = source_rows(after, before, buffers.tokens.shape[0]), block.attention.scale

    def project(first: Array, size: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        tokens, projected = carry
        rows = tokens[lax.dynamic_slice(source, (first,), (size,))]
        return (
            write(tokens, rows, first),
            write(projected, block.attention.qkv(block.norm1(rows)), first),
        )

    def attend(images: Array, firsts: Array, length: int, mixed: Array) -> Array:
        rows = gather(projected, firsts, length)
        query, key, value = split_heads(rows, 3, block.attention)
        keys = jnp.arange(length) < after.counts[images][:, None]
        answer = attention.mix(query, key, value, keys=keys, scale=scale).reshape(
            *rows.shape[:2], -1
        )
        for first, update, exists in zip(firsts, answer, keys, strict=True):
            old = lax.dynamic_slice(mixed, (first, 0), update.shape)
            mixed = write(mixed, jnp.where(exists[:, None], update, old), first)
        return mixed

    def feed(first: Array, size: int, tokens: Array) -> Array:
        rows = read(tokens, first, size) + block.attention.proj(read(mixed, first, size))
        return write(tokens, block.feed(rows[None])[0], first)

    tokens, projected = for_rows(project, after.total, (buffers.tokens, buffers.projected), plan)
    mixed = for_images(attend, after.counts, after.offsets, buffers.mixed, plan)
    tokens = for_rows(feed, after.total, tokens, plan)
    return Buffers(tokens=tokens, projected=projected, mixed=mixed)


def run_last(
    block: Block, buffers: Buffers, before: Packing, after: Packing, plan: Plan, *, prefix: int
) -> Array:
    """The last block, of which only the prefix tokens are wanted: `[B, prefix, D]`.

    All live tokens give keys and values; queries, projection and MLP are those of the prefix. Rows
    of prefix tokens that are not live are meaningless.
    """
    source, scale = source_rows(after, before, buffers.tokens.shape[0]), block.attention.scale
    dim = buffers.tokens.shape[1]

    def project(first: Array, size: int, projected: Array) -> Array:
        rows = buffers.tokens[lax.dynamic_slice(source, (first,), (size,))]
        return write(projected, block.attention.keys_values(block.norm1(rows)), first)

    def attend(images: Array, firsts: Array, length: int, mixed: Array) -> Array:
        rows = gather(projected, firsts, length)
        key, value = split_heads(rows, 2, block.attention)
        keys = jnp.arange(length) < after.counts[images][:, None]
        answer = attention.mix(query[images], key, value, keys=keys, scale=scale)
        return mixed.at[images].set(answer)

    projected = for_rows(project, after.total, buffers.projected[:, : 2 * dim], plan)
    rows = jnp.clip(before.positions()[:, :prefix], 0, len(source) - 1)
    tokens = buffers.tokens[rows]
    query = block.attention.queries(block.norm1(tokens))
    (query,) = split_heads(query, 1, block.attention)
    mixed = for_images(attend, after.counts, after.offsets, jnp.zeros_like(query), plan)
    return block.feed(tokens + block.attention.proj(mixed.reshape(tokens.shape)))


def split_heads(rows: Array, parts: int, module: Attention) -> list[Array]:
    """`[B, N, parts * D]` as `parts` arrays `[B, N, H, d]`."""
    rows = rows.reshape(*rows.shape[:2], parts, module.num_heads, -1)
    return [rows[:, :, part] for part in range(parts)]


def gather(rows: Array, firsts: Array, length: int) -> Array:
    """The rows of some images, `[images, length, ...]`, with others' rows behind shorter ones."""
    return jnp.stack([read(rows, first, length) for first in firsts])


def read(rows: Array, first: Array, size: int) -> Array:
    """`size` rows from `first` on."""
    return lax.dynamic_slice(rows, (first, 0), (size, rows.shape[1]))


def write(rows: Array, update: Array, first: Array) -> Array:
    """Rows with some of them replaced, from `first` on."""
    return lax.dynamic_update_slice(rows, update.astype(rows.dtype), (first, 0))
