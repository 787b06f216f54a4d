"""The fastest dense execution we know, which every other execution is compared with.

Of a model of several networks nothing is known but its own dense execution, so that one is run.

On a CPU blocks run under a scan over stacked weights, on a few images at a time so that what a
block computes stays in the cache; a GPU wants neither. For the kernels of a TPU, images are rows
that begin at multiples of 16, as in static execution. The last block computes queries and the MLP
of those tokens only that the classifiers read; under a norm over an image's tokens only the MLP,
because the statistics of what it is given are those of all tokens.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from avit_jax.execution import row_block
from avit_jax.execution.execution import Execution, Program
from avit_jax.execution.image_groups import filled_up, of_images
from avit_jax.execution.layout import every_token, whole_rows
from avit_jax.execution.plan import Plan
from avit_jax.models import costs, functional
from avit_jax.models.backbone import Backbone
from avit_jax.models.block import Block
from avit_jax.models.functional import Params, layer_at
from avit_jax.models.norms import is_over_tokens, statistics
from avit_jax.models.shape import Shape
from avit_jax.types import Gates, Output, Usage


def dense(network: Backbone, images: Array, plan: Plan) -> Output:
    """`logits` and `usage` of `[B, H, W, 3]` normalised images, every token in every layer."""
    shape = network.shape
    batch, front = images.shape[0], shape.num_last_tokens
    if shape.ragged_attention:
        return _answered(network, _in_rows(network, images, plan))
    groups, filled = 1, batch
    if plan.dense_images is not None:
        # As even as can be, or the last group would be mostly padding.
        groups = -(-batch // min(plan.dense_images, batch))
        filled = groups * -(-batch // groups)
        images = jnp.pad(images, ((0, filled - batch), *(((0, 0),) * 3)))
    tokens = network.embed(images)
    tokens = tokens.reshape(groups, filled // groups, *tokens.shape[1:])

    def layer(tokens: Array, index: Array) -> tuple[Array, None]:
        return block_in_groups(layer_at(network.blocks, index), tokens), None

    layers = jnp.arange(shape.depth - 1)
    tokens, _ = lax.scan(layer, tokens, layers, unroll=plan.unrolled)
    last = layer_at(network.blocks, shape.depth - 1)
    answer = lax.map(lambda group: last_block(last, group, prefix=front), tokens)
    return _answered(network, answer.reshape(filled, front, -1)[:batch])


def _in_rows(network: Backbone, images: Array, plan: Plan) -> Array:
    """The first tokens `[B, num_last_tokens, D]` behind the last block, from aligned rows."""
    shape = network.shape
    layout = every_token(len(images), shape.num_tokens, aligned=True)
    everything = layout.held
    rows = whole_rows(network.embed(images), layout)

    def layer(rows: Array, index: Array) -> tuple[Array, None]:
        return row_block.run(layer_at(network.blocks, index), rows, layout, everything), None

    rows, _ = lax.scan(layer, rows, jnp.arange(shape.depth - 1), unroll=plan.unrolled)
    last = layer_at(network.blocks, shape.depth - 1)
    return row_block.run_last(last, rows, layout, everything, prefix=shape.num_last_tokens)


def _answered(network: Backbone, front: Array) -> Output:
    shape = network.shape
    everything = jnp.ones((shape.depth, front.shape[0], shape.num_tokens), bool)
    heads = network.readout(network.read(front))
    return Output(logits=heads.mean(0), usage=(Usage(tokens=everything),))


def dense_gmacs(shape: Shape, batch_size: int, plan: Plan) -> float:
    """What `dense` runs for a batch on one device, in units of 1e9."""
    if shape.ragged_attention:
        return costs.aligned_inference_gmacs(shape) * batch_size
    most = batch_size if plan.dense_images is None else plan.dense_images
    return costs.dense_inference_gmacs(shape) * filled_up(batch_size, most)


def _program(model: Any, plan: Plan) -> Program:
    def run(params: Params, images: Array, exists: Array) -> Output:
        if not model.one_network:
            return of_images(model.apply(params, images, execution="dense"))
        return of_images(dense(functional.bind(model.build, params), images, plan))

    return run


def _executed_gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    batch = usage[0].tokens.shape[1]
    if not model.one_network:
        return model.dense_gmacs() * batch
    return dense_gmacs(model.with_kernels(plan).shape, batch, plan)


DENSE = Execution(
    name="dense",
    program=_program,
    executed_gmacs=_executed_gmacs,
    exact=False,
    fixed_batch=False,
)


def block_in_groups(block: Block, tokens: Array, gates: tuple[Gates, Gates] | None = None) -> Array:
    """A block on `[groups, images, N, D]`, one group of images after the other.

    Args:
        block: with its parameters.
        tokens: in front of it.
        gates: of both halves, with arrays `[groups, images, ...]`, to mask what they leave out.
    """

    def treat(group: Array, tokens: Array) -> Array:
        attend, feed = jax.tree.map(lambda array: array[group], gates or (Gates(), Gates()))
        rows = block.attend(tokens[group], gates=attend)
        return tokens.at[group].set(block.feed(rows, gates=feed))

    return lax.fori_loop(0, len(tokens), treat, tokens)


def even_group(images: int, plan: Plan) -> int:
    """The most images, of those that divide all evenly, that dense execution treats together."""
    return max(
        size for size in range(1, images + 1) if images % size == 0 and size <= plan.dense_images
    )


def last_block(
    block: Block,
    tokens: Array,
    *,
    prefix: int,
    live: Array | None = None,
    positions: Array | None = None,
    bias: Array | None = None,
    extra: Array | None = None,
) -> Array:
    """The first tokens `[B, prefix, D]` behind the last block, see `Tokens.num_last_tokens`.

    Args:
        block: with its parameters.
        tokens: `[B, N, D]` in front of it.
        prefix: number of tokens that are wanted.
        live: `[B, N]` bool, tokens that may be attended to; all by default.
        positions: `[B, N]`, which token of its image each row is; in order by default.
        bias: `[B, H, prefix, N]`, added to these tokens' scores.
        extra: `[B, prefix, context]`, joined to the MLP's input.
    """
    if is_over_tokens(block.norm2):  # nothing is reused, then: `Shape` refuses it
        tokens = block.attend(tokens, gates=Gates(tokens=live), positions=positions)
        known = statistics(block.norm2, tokens, live)
        return block.feed(tokens[:, :prefix], statistics=known)
    if block.keeps_slots:
        update = block.mlp_tokens(block.norm1(tokens), first=prefix)
        return block.feed(tokens[:, :prefix] + update, extra=extra)
    attention, normed = block.attention, block.norm1(tokens)
    key, value = attention.keys_values(normed, positions)
    query = attention.queries(normed[:, :prefix])
    mixed = attention.mix(query, key, value, live=live, bias=bias)
    return block.feed(tokens[:, :prefix] + attention.finish(mixed), extra=extra)
