"""Static execution of halting: live rows of the whole batch, in buffers of fixed capacity.

Exact as long as every live token finds a row, which the answer says. Halting itself is kept by
token, `[B, N]`, and shared with masked execution; only the blocks' rows move. No loop and no branch
depends on data, and gradients flow through all of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from avit_jax.execution import layout as layouts
from avit_jax.execution import row_block
from avit_jax.execution.packing import pack
from avit_jax.execution.row_block import StochasticDepth
from avit_jax.methods.avit import answers, halting
from avit_jax.methods.avit.rules import Rules, behind
from avit_jax.models.block import Block
from avit_jax.models.functional import layer_at
from avit_jax.models.image_rows import ALIGN
from avit_jax.models.shape import Shape


@struct.dataclass(kw_only=True)
class Ran:
    """What came of a batch.

    Attributes:
        answer: `[B, num_read, D]` float32, what the classifiers read.
        states: `[L, B, answers, D]`, of class and distillation tokens behind each layer, 0 where
            they had halted; `None` of a model that averages patches.
        live: `[L, B, N]` bool, tokens that each layer ran.
        weights: `[L, B, N]` float32, of each layer's states in the tokens' outputs.
        state: behind the last layer.
        fits: bool, whether every live token had a row in every layer.
    """

    answer: Array
    states: Array | None
    live: Array
    weights: Array
    state: halting.Halting
    fits: Array


def run(
    shape: Shape,
    blocks: Block,
    tokens: Array,
    exists: Array,
    capacities: tuple[int, ...],
    rules: Rules,
    *,
    finished_leave: bool = True,
    depth: StochasticDepth | None = None,
) -> Ran:
    """All layers on the rows of live tokens.

    Args:
        shape: of the backbone.
        blocks: of the backbone, stacked, with their parameters.
        tokens: `[B, N, D]`, embedded.
        exists: `[B]` bool; images that only fill up the batch are False and take no rows.
        capacities: rows of each layer, which do not rise. Where a layer has as many as the one
            before, nothing moves, and tokens that have halted are left where they are.
        rules: of halting.
        finished_leave: whether tokens stop where all that are read of their image have halted,
            because nobody asks for more than the answer.
        depth: draws of a training with stochastic depth, with a layer axis in front.
    """
    batch, num_tokens, _ = tokens.shape
    aligned = shape.ragged_attention
    layout = layouts.every_token(batch, num_tokens, aligned=aligned)
    rows = layouts.whole_rows(tokens, layout)
    state = halting.start((batch, num_tokens))
    answer = answers.nothing(shape, batch)
    fits, fronts, lives, weights = jnp.bool_(True), [], [], []
    run_block = jax.checkpoint(row_block.run) if shape.remat else row_block.run
    for index in range(rules.layers):
        live = state.live & exists[:, None]
        if finished_leave:
            live = answers.running(shape, live)
        # Rows of a whole layout may stay, and be masked; once they lie packed, kernels see to it.
        if capacities[index] < layout.rows or (aligned and not layout.whole):
            packing = pack(live, align=ALIGN if aligned else 1)
            after = layouts.packed(packing, capacities[index], aligned=aligned)
            rows, layout = layouts.moved(rows, layout, after), after
        elif index:  # as in masked execution: what has halted is 0, and does not grow where it lies
            rows = jnp.where(layouts.holding(live, layout)[:, None], rows, 0)
        fits = fits & (live <= layout.held).all()
        block, last = layer_at(blocks, index), index == rules.layers - 1
        drawn = jax.tree.map(lambda leaf, index=index: leaf[index], depth)
        score, front = jnp.zeros(live.shape, jnp.float32), None
        if last and not shape.averages:
            count = shape.num_answer_tokens
            front = row_block.run_last(block, rows, layout, live, prefix=count, depth=drawn)
        else:
            rows = run_block(block, rows, layout, live, drawn)
        if not last:
            score = layouts.as_tokens(rules.score(rows[None], index)[0], layout)
            score = jnp.where(live, score, 0.0)
            if not shape.averages:
                front = layouts.front_tokens(rows, layout, shape.num_answer_tokens)
        state, weight = rules.step(state.replace(live=live), score, index)
        state = state.replace(live=state.live & live)
        if shape.averages:
            answer = answer + answers.gained_by_rows(shape, live, weight, rows, layout)
        else:
            answer = answer + answers.gained(shape, live, weight, front)
            fronts.append(jnp.where(live[:, shape.read, None], front, 0))
        lives.append(live)
        weights.append(weight)
    return Ran(
        answer=answer,
        states=behind(jnp.stack(fronts), shape.depth) if fronts else None,
        live=behind(jnp.stack(lives), shape.depth),
        weights=behind(jnp.stack(weights), shape.depth),
        state=state,
        fits=fits,
    )
