"""Compacted execution of methods whose tokens halt for good: halted tokens leave the buffers.

Exact: a halted token is no key and is never read again, and only the prefix tokens' weighted means
reach the head, so an image whose prefix tokens have halted is finished and leaves as a whole.

As long as no token of the group has halted, layers run as in dense execution, the last one too,
which packing could only slow down. From then on the rows of several images are packed
(`packed_block.py`); a single one takes the smallest length that holds it (`single_image.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.execution import packed_block, single_image
from avit_jax.execution.dense import block_in_groups, even_group, last_block
from avit_jax.execution.packing import pack, unpack
from avit_jax.execution.plan import Plan
from avit_jax.methods.avit import halting
from avit_jax.models.backbone import Backbone
from avit_jax.models.functional import layer_at
from avit_jax.types import Output, Usage

Score = Callable[[Array], Array]


def compact(
    network: Backbone, images: Array, exists: Array, plan: Plan, *, score: Score, eps: float
) -> Output:
    """Logits of one group of images, computing live tokens only.

    Args:
        network: the backbone with its parameters.
        images: `[B, H, W, 3]`, normalised.
        exists: `[B]` bool; images that only fill up the batch are False and cost nothing.
        plan: static sizes.
        score: halting scores `[1, rows]` of tokens `[1, rows, D]`.
        eps: a token halts above a cumulative score of `1 - eps`.

    Returns:
        `logits` and `usage`.
    """
    shape = network.shape
    prefix = shape.num_prefix_tokens
    blocks = packed_block if len(images) > 1 else single_image
    tokens = network.embed(images, dtype=halting.STREAM)
    everything = jnp.broadcast_to(exists[:, None], tokens.shape[:2])

    def account(
        state: halting.Halting, live: Array, spent: Array, prefix_states: Array, answer: Array
    ) -> tuple[halting.Halting, Array]:
        state, weight = halting.step(state.replace(live=live), spent, eps=eps)
        return state, answer + halting.contribution(live, weight, prefix_states)

    def running(state: halting.Halting) -> Array:
        live = state.live & everything
        return live & live[:, :prefix].any(1, keepdims=True)

    def untouched(carry: tuple) -> Array:
        index, _, state, _ = carry
        return (index < shape.depth - 1) & running(state).all()

    def whole_layer(carry: tuple) -> tuple:
        index, tokens, state, answer = carry
        grouped = tokens.reshape(-1, even_group(len(tokens), plan), *tokens.shape[1:])
        grouped = block_in_groups(layer_at(network.blocks, index), grouped)
        tokens = grouped.reshape(tokens.shape)
        state, answer = account(state, everything, score(tokens), tokens[:, :prefix], answer)
        return index + 1, tokens, state, answer

    def packed_layer(index: Array, carry: tuple) -> tuple:
        buffers, before, state, answer, lives = carry
        live = running(state)
        after = pack(live)
        buffers = blocks.run(layer_at(network.blocks, index), buffers, before, after, plan)
        spent = unpack(score(buffers.tokens[None])[0], after)
        rows = jnp.clip(after.rows()[:, :prefix], 0, buffers.tokens.shape[0] - 1)
        state, answer = account(state, live, spent, buffers.tokens[rows], answer)
        return buffers, after, state, answer, lives.at[index].set(live)

    def whole_end(
        tokens: Array, state: halting.Halting, answer: Array
    ) -> tuple[Array, halting.Halting, Array, Array]:
        block = layer_at(network.blocks, shape.depth - 1)
        last = last_block(block, tokens, prefix=prefix, live=running(state))
        return last, state, answer, everywhere

    def packed_end(
        tokens: Array, state: halting.Halting, answer: Array
    ) -> tuple[Array, halting.Halting, Array, Array]:
        # All tokens lie in the buffer at first, those of images that do not exist among them.
        packing = pack(jnp.ones_like(everything))
        buffers = blocks.start(tokens, plan, dtype=shape.block.dtype)
        carry = (buffers, packing, state, answer, everywhere)
        buffers, before, state, answer, lives = jax.lax.fori_loop(
            first, shape.depth - 1, packed_layer, carry
        )
        block, after = layer_at(network.blocks, shape.depth - 1), pack(running(state))
        last = blocks.run_last(block, buffers, before, after, plan, prefix=prefix)
        return last, state, answer, lives

    everywhere = jnp.ones((shape.depth, *everything.shape), bool)
    answer = jnp.zeros((*tokens.shape[:1], prefix, tokens.shape[2]), jnp.float32)
    first, tokens, state, answer = jax.lax.while_loop(
        untouched, whole_layer, (0, tokens, halting.start(everything.shape), answer)
    )
    if len(images) == 1:  # the last block is run at one of several lengths anyway
        last, state, answer, lives = packed_end(tokens, state, answer)
    else:
        last, state, answer, lives = jax.lax.cond(
            first == shape.depth - 1, whole_end, packed_end, tokens, state, answer
        )
    live = running(state)
    state, answer = account(state, live, jnp.where(live, 1.0, 0.0), last, answer)
    heads = network.readout(answer)
    return Output(
        logits=heads.mean(0),
        usage=(Usage(tokens=lives.at[-1].set(live)),),
    )
