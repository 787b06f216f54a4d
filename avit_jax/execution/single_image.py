"""One transformer block on the live tokens of a single image: what `packed_block` does for several.

There is nothing to pack: a block runs whole, at the smallest static length that holds the tokens.
That is one decision a layer, where loops over all static sizes, most of which have nothing to do,
would take a tenth of a small model's time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from jax.typing import DTypeLike

from avit_jax.execution.between_exits import NOTHING, Given, put_back, with_scores
from avit_jax.execution.dense import last_block
from avit_jax.execution.loops import smallest
from avit_jax.execution.packing import Packing, moved_rows
from avit_jax.execution.plan import Plan
from avit_jax.models.block import Block
from avit_jax.types import Gates

IMAGE = np.zeros(1, np.int32)  # the only one
Result = TypeVar("Result")


@struct.dataclass(kw_only=True)
class Buffers:
    """The image's tokens `[N, D]`, live ones first, and `relations` as of `packed_block`."""

    tokens: Array
    relations: Array | None = None


def start(
    tokens: Array, plan: Plan, *, dtype: DTypeLike, relations: Array | None = None
) -> Buffers:
    """Buffers that hold all tokens `[1, N, D]`; see `packed_block.start`."""
    del plan, dtype  # they are never read beyond their end, and hold nothing but tokens
    return Buffers(tokens=tokens[0], relations=relations)


def run(
    block: Block,
    buffers: Buffers,
    before: Packing,
    after: Packing,
    plan: Plan,
    given: Given = NOTHING,
) -> Buffers:
    """The block on the tokens of `after`; arguments as of `packed_block.run`."""
    relations = buffers.relations

    def treat(rows: Array, live: Array, positions: Array) -> tuple[Array, Array | None]:
        gates = Gates(tokens=live)
        bias, extra = given.of_pairs(IMAGE, positions, positions), given.of_rows(0, positions)
        rows, scores = block.attend_and_score(rows, gates=gates, positions=positions, bias=bias)
        whole = None
        if relations is not None:
            whole = put_back(scores(), after.rows(), after.live).astype(relations.dtype)
        rows = block.feed(rows, gates=gates, extra=extra)
        return jnp.pad(rows[0], ((0, len(buffers.tokens) - rows.shape[1]), (0, 0))), whole

    nothing = None if relations is None else jnp.zeros_like(relations[0])
    tokens, whole = _at_its_length(treat, (buffers.tokens, nothing), buffers, before, after, plan)
    if relations is not None:  # not in the branches, which would copy all of them
        relations = with_scores(relations, whole, given.layer, 0)
    return Buffers(tokens=tokens, relations=relations)


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
    """The last block, of which only the prefix tokens `[1, prefix, D]` are wanted."""
    # Where one has halted, those behind it lie further in front, but never behind the first rows.
    rank = jnp.clip(after.rows()[:, :prefix], 0, prefix - 1)

    def treat(rows: Array, live: Array, positions: Array) -> Array:
        bias = given.of_pairs(IMAGE, positions[:, :prefix], positions)
        front = last_block(
            block,
            rows,
            prefix=prefix,
            live=live,
            positions=positions,
            bias=bias,
            extra=given.of_prefix(prefix),
        )
        return jnp.take_along_axis(front, rank[:, :, None], axis=1)

    nothing = jnp.zeros((1, prefix, buffers.tokens.shape[1]), buffers.tokens.dtype)
    return _at_its_length(treat, nothing, buffers, before, after, plan)


def _at_its_length(
    treat: Callable[[Array, Array, Array], Result],
    otherwise: Result,
    buffers: Buffers,
    before: Packing,
    after: Packing,
    plan: Plan,
) -> Result:
    """`treat(rows, live, positions)` of `[1, length]` rows, or `otherwise` if none is live."""
    source, positions = moved_rows(after, before, len(buffers.tokens))
    count = after.total

    def at(length: int) -> Callable[[], Result]:
        rows, live = source[:length], jnp.arange(length) < count
        return lambda: treat(buffers.tokens[rows][None], live[None], positions[None, :length])

    branches = [lambda: otherwise, *(at(length) for length in plan.lengths)]
    return lax.switch(smallest(count, (0, *plan.lengths)), branches)
