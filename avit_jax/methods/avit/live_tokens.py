"""Compacted execution of methods whose tokens halt for good: halted tokens leave the buffers.

Exact: a halted token is no key and is never read again, and only weighted means of the tokens that
are read reach the head, so an image in which those have halted is finished and leaves as a whole.

As long as no token of the group has halted, layers run as in dense execution, the last one too,
which packing could only slow down. From then on the rows of several images are packed
(`packed_block.py`); a single one takes the smallest length that holds it (`single_image.py`).

An exit of a cascade that hands something over, and a model that averages patches, run the last
block for all live tokens. What a token hands over is kept from layer to layer, because its row is
lost once it has halted.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.execution import packed_block, single_image
from avit_jax.execution.between_exits import Given, whole_block
from avit_jax.execution.dense import last_block
from avit_jax.execution.packing import pack, unpack
from avit_jax.execution.plan import Plan
from avit_jax.methods.avit import answers, halting
from avit_jax.methods.avit.rules import Rules
from avit_jax.methods.forward import Call, Reused
from avit_jax.models.backbone import Backbone
from avit_jax.models.functional import layer_at
from avit_jax.types import Output, Usage


def compact(
    network: Backbone,
    images: Array,
    exists: Array,
    plan: Plan,
    call: Call,
    rules: Rules,
) -> Output:
    """Logits of one group of images, computing live tokens only.

    Args:
        network: the backbone with its parameters.
        images: `[B, H, W, 3]`, normalised.
        exists: `[B]` bool; images that only fill up the batch are False and cost nothing.
        plan: static sizes.
        call: of an exit of a cascade what it is given (`reused`) and hands over (`shown`).
        rules: of halting.

    Returns:
        `logits` and `usage`, and in `aux` what is shown.
    """
    shape = network.shape
    final = rules.layers - 1
    blocks = packed_block if len(images) > 1 else single_image
    tokens = network.embed(images, dtype=halting.STREAM)
    everything = jnp.broadcast_to(exists[:, None], tokens.shape[:2])
    all_whole = bool(call.shown) or shape.averages
    whole_layers = rules.layers if all_whole else rules.layers - 1
    reused = call.reused or Reused()

    def given(layer: Array | int) -> Given:
        return Given(layer=layer, extra=reused.extra, bias=reused.bias)

    def account(
        state: halting.Halting,
        live: Array,
        score: Array,
        layer: Array,
        states: Array,
        answer: Array,
    ) -> tuple[halting.Halting, Array]:
        state, weight = rules.step(state.replace(live=live), score, layer)
        return state, answer + answers.gained(shape, live, weight, states)

    def running(state: halting.Halting) -> Array:
        return answers.running(shape, state.live & everything)

    def untouched(carry: tuple) -> Array:
        index, _, state, _, _ = carry
        return (index < whole_layers) & running(state).all()

    def whole_layer(carry: tuple) -> tuple:
        index, tokens, state, answer, scores = carry
        block = layer_at(network.blocks, index)
        tokens, scores = whole_block(block, tokens, scores, given(index), plan)
        score = rules.score(tokens, index)
        state, answer = account(state, everything, score, index, tokens[:, shape.read], answer)
        return index + 1, tokens, state, answer, scores

    def packed_layer(index: Array, carry: tuple) -> tuple:
        buffers, before, state, answer, lives, kept = carry
        live = running(state)
        after, block = pack(live), layer_at(network.blocks, index)
        buffers = blocks.run(block, buffers, before, after, plan, given(index))
        score = unpack(rules.score(buffers.tokens[None], index)[0], after)
        rows = jnp.clip(after.rows()[:, shape.read], 0, buffers.tokens.shape[0] - 1)
        state, answer = account(state, live, score, index, buffers.tokens[rows], answer)
        if kept is not None:
            rows = jnp.clip(after.rows(), 0, buffers.tokens.shape[0] - 1)
            kept = jnp.where(live[:, :, None], buffers.tokens[rows], kept)
        return buffers, after, state, answer, lives.at[index].set(live), kept

    def packed_layers(
        tokens: Array, state: halting.Halting, answer: Array, scores: Array | None
    ) -> tuple:
        # All tokens lie in the buffer at first, those of images that do not exist among them.
        packing = pack(jnp.ones_like(everything))
        buffers = blocks.start(tokens, plan, dtype=shape.block.dtype, relations=scores)
        kept = tokens if "states" in call.shown else None
        carry = (buffers, packing, state, answer, everywhere, kept)
        return jax.lax.fori_loop(first, whole_layers, packed_layer, carry)

    def whole_end(
        tokens: Array, state: halting.Halting, answer: Array
    ) -> tuple[Array, halting.Halting, Array, Array]:
        block, here = layer_at(network.blocks, final), given(final)
        last = last_block(
            block,
            tokens,
            prefix=front,
            live=running(state),
            bias=here.of_queries(front),
            extra=here.of_prefix(front),
        )
        return last, state, answer, everywhere

    def packed_end(
        tokens: Array, state: halting.Halting, answer: Array
    ) -> tuple[Array, halting.Halting, Array, Array]:
        buffers, before, state, answer, lives, _ = packed_layers(tokens, state, answer, None)
        block, after = layer_at(network.blocks, final), pack(running(state))
        last = blocks.run_last(block, buffers, before, after, plan, given(final), prefix=front)
        return last, state, answer, lives

    runs = jnp.arange(shape.depth) < rules.layers
    everywhere = jnp.broadcast_to(runs[:, None, None], (shape.depth, *everything.shape))
    answer, front = answers.nothing(shape, len(images)), shape.num_last_tokens
    scores = None
    if "relations" in call.shown:
        pairs = (shape.num_heads, shape.num_tokens, shape.num_tokens)
        scores = jnp.zeros((shape.depth, len(images), *pairs), shape.dtype)
    first, tokens, state, answer, scores = jax.lax.while_loop(
        untouched, whole_layer, (0, tokens, halting.start(everything.shape), answer, scores)
    )
    if all_whole:
        buffers, _, _, answer, lives, kept = packed_layers(tokens, state, answer, scores)
        found = {"states": kept, "relations": buffers.relations}
        return Output(
            logits=network.readout(answer).mean(0),
            usage=(Usage(tokens=lives),),
            aux={name: found[name] for name in call.shown},
        )
    if len(images) == 1:  # the last block is run at one of several lengths anyway
        last, state, answer, lives = packed_end(tokens, state, answer)
    else:
        last, state, answer, lives = jax.lax.cond(
            first == final, whole_end, packed_end, tokens, state, answer
        )
    live = running(state)
    state, answer = account(state, live, jnp.zeros(live.shape), final, last, answer)
    heads = network.readout(answer)
    return Output(
        logits=heads.mean(0),
        usage=(Usage(tokens=lives.at[final].set(live)),),
    )
