"""One transformer block on the live tokens of a single image: what `packed_block` does for several.

There is nothing to pack: a block runs whole, at the smallest static length that holds the tokens.
That is one decision a layer, where loops over all static sizes, most of which have nothing to do,
would take a tenth of a small model's time.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.typing import DTypeLike

from avit_jax.execution.dense import last_block
from avit_jax.execution.loops import smallest
from avit_jax.execution.packing import Packing, moved_rows
from avit_jax.execution.plan import Plan
from avit_jax.models.block import Block
from avit_jax.types import Gates


@struct.dataclass(kw_only=True)
class Buffers:
    """The image's tokens `[N, D]`, live ones first."""

    tokens: Array


def start(tokens: Array, plan: Plan, *, dtype: DTypeLike) -> Buffers:
    """Buffers that hold all tokens `[1, N, D]`; see `packed_block.start`."""
    del plan, dtype  # they are never read beyond their end, and hold nothing but tokens
    return Buffers(tokens=tokens[0])


def run(block: Block, buffers: Buffers, before: Packing, after: Packing, plan: Plan) -> Buffers:
    """The block on the tokens of `after`; arguments as of `packed_block.run`."""

    def treat(rows: Array, live: Array, positions: Array) -> Array:
        gates = Gates(tokens=live)
        rows = block.feed(block.attend(rows, gates=gates, positions=positions), gates=gates)
        return jnp.pad(rows[0], ((0, len(buffers.tokens) - rows.shape[1]), (0, 0)))

    return Buffers(tokens=_at_its_length(treat, buffers.tokens, buffers, before, after, plan))


def run_last(
    block: Block, buffers: Buffers, before: Packing, after: Packing, plan: Plan, *, prefix: int
) -> Array:
    """The last block, of which only the prefix tokens `[1, prefix, D]` are wanted."""

    def treat(rows: Array, live: Array, positions: Array) -> Array:
        return last_block(block, rows, prefix=prefix, live=live, positions=positions)

    nothing = jnp.zeros((1, prefix, buffers.tokens.shape[1]), buffers.tokens.dtype)
    return _at_its_length(treat, nothing, buffers, before, after, plan)


def _at_its_length(
    treat: Callable[[Array, Array, Array], Array],
    otherwise: Array,
    buffers: Buffers,
    before: Packing,
    after: Packing,
    plan: Plan,
) -> Array:
    """`treat(rows, live, positions)` of `[1, length]` rows, or `otherwise` if none is live."""
    source, positions = moved_rows(after, before, len(buffers.tokens))
    count = after.total

    def at(length: int) -> Callable[[], Array]:
        rows, live = source[:length], jnp.arange(length) < count
        return lambda: treat(buffers.tokens[rows][None], live[None], positions[None, :length])

    branches = [lambda: otherwise, *(at(length) for length in plan.lengths)]
    return lax.switch(smallest(count, (0, *plan.lengths)), branches)
