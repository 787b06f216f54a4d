"""Token halting cut between layers, for streams: an image leaves when all that is read has halted.

On a CPU the live tokens of a batch are packed at the beginning of each segment, elsewhere halted
ones are masked, with the arithmetic of training either way.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from avit_jax.execution import packed_block
from avit_jax.execution.packing import Packing, pack, unpack
from avit_jax.execution.plan import Plan
from avit_jax.methods.avit import answers, halting
from avit_jax.methods.avit.rules import rules_of
from avit_jax.models import functional
from avit_jax.models.backbone import Backbone
from avit_jax.models.functional import Params, layer_at
from avit_jax.streaming.segment import Passed, Segment
from avit_jax.types import Gates, Output, Usage

MOST = 4  # segments: each has a queue with the tokens of whole batches


@struct.dataclass(kw_only=True)
class State:
    """Images between two layers; the batch in front everywhere.

    Attributes:
        tokens: `[b, N, D]`, meaningful where they are live.
        halting: of every token.
        answer: `[b, num_read, D]`, what the classifiers read, so far.
        ran: `[b, L, N]` bool, tokens that ran in each layer.
        content: `[b]` uint32, of the images, see `Rules.content`.
    """

    tokens: Array
    halting: halting.Halting
    answer: Array
    ran: Array
    content: Array | None


def segments(model: Any, plan: Plan, *, compact: bool) -> tuple[Segment, ...]:
    """See `base.Model.segments`: at most `MOST`, of like numbers of layers."""
    layers = model.settings.layers(model.shape.depth)
    ends = np.linspace(0, layers, min(MOST, layers) + 1).round().astype(int).tolist()
    parts = [range(first, last) for first, last in itertools.pairwise(ends)]
    run = _packed if compact else _masked
    return tuple(functools.partial(_segment, model, run, part, plan) for part in parts)


def _segment(
    model: Any, run: Any, layers: range, plan: Plan, params: Params, state: Any, exists: Array
) -> Passed:
    network = functional.bind(model.build, params)
    shape = model.shape
    if layers.start == 0:
        state = _start(model, network, state)
    rules = rules_of(model.shape, model.settings, network, content=state.content)

    def live(state: State) -> Array:
        """Tokens that run next, `[b, N]`: of images that are there and not finished."""
        return answers.running(shape, state.halting.live & exists[:, None])

    def account(index: Array, state: State, runs: Array, tokens: Array, score: Array) -> State:
        """The state behind a layer, of its tokens `[b, N, D]` and their scores `[b, N]`."""
        score = jnp.where(runs, score, 0.0)
        after, weight = rules.step(state.halting.replace(live=runs), score, index)
        gained = answers.gained(shape, runs, weight, tokens[:, shape.read])
        return state.replace(
            tokens=tokens,
            halting=after,
            answer=state.answer + gained,
            ran=state.ran.at[:, index].set(runs),
        )

    state = run(rules, network, layers, plan, state, live, account)
    is_last = layers.stop == rules.layers
    return Passed(
        output=Output(
            logits=network.readout(state.answer).mean(0),
            usage=(Usage(tokens=state.ran.swapaxes(0, 1)),),
        ),
        leaves=jnp.ones(len(exists), bool) if is_last else ~live(state).any(1),
        state=() if is_last else state,
    )


def _start(model: Any, network: Backbone, images: Array) -> State:
    tokens = network.embed(images, dtype=halting.STREAM)
    batch, length, _ = tokens.shape
    return State(
        tokens=tokens,
        halting=halting.start((batch, length)),
        answer=answers.nothing(network.shape, batch),
        ran=jnp.zeros((batch, network.shape.depth, length), bool),
        content=model.rules(network, images).content,
    )


def _masked(rules, network, layers: range, plan: Plan, state: State, live, account) -> State:
    """Layers on whole images, one after the other."""

    def layer(index: Array, state: State) -> State:
        runs, block = live(state), layer_at(network.blocks, index)
        x = jnp.where(runs[:, :, None], state.tokens, 0)
        gates = Gates(tokens=runs)
        x = block.feed(block.attend(x, gates=gates), gates=gates)
        return account(index, state, runs, x, rules.score(x, index))

    return jax.lax.fori_loop(layers.start, layers.stop, layer, state, unroll=plan.unrolled)


def _packed(rules, network, layers: range, plan: Plan, state: State, live, account) -> State:
    """Layers on the live tokens alone, packed (`execution/packed_block.py`)."""

    def layer(index: Array, carry: tuple) -> tuple:
        buffers, before, state = carry
        runs = live(state)
        after, block = pack(runs), layer_at(network.blocks, index)
        buffers = packed_block.run(block, buffers, before, after, plan)
        score = unpack(rules.score(buffers.tokens[None], index)[0], after)
        state = account(index, state, runs, _by_token(buffers.tokens, after), score)
        return buffers, after, state

    buffers = packed_block.start(state.tokens, plan, dtype=network.shape.block.dtype)
    carry = (buffers, pack(jnp.ones_like(state.halting.live)), state)
    return jax.lax.fori_loop(layers.start, layers.stop, layer, carry)[-1]


def _by_token(rows: Array, packing: Packing) -> Array:
    """Packed rows `[rows, D]` as `[b, N, D]`; anything where a token is not live."""
    return rows[jnp.clip(packing.rows(), 0, len(rows) - 1)]
