"""The parts of a model that a method may leave out, and what share of them ran.

Everything is read from `Usage`, so this holds for any method that skips tokens, heads or halves of
blocks. Shapes as in `types.py`.
"""

from __future__ import annotations

from jax import Array

from avit_jax.types import Usage

PARTS = ("tokens", "heads", "halves")


def ran(usage: Usage) -> dict[str, Array]:
    """What ran in each block, `[L, B, K]` bool: `tokens`, and `heads` and `halves` if chosen.

    A head ran where its attention did: one that was kept in an attention half that was left out
    did not. Without a token nothing runs.
    """
    some = usage.tokens.any(-1, keepdims=True)
    result = {"tokens": usage.tokens}
    if usage.heads is not None:
        attended = True if usage.branches is None else usage.branches[..., :1] > 0
        result["heads"] = (usage.heads > 0) & attended & some
    if usage.branches is not None:
        result["halves"] = (usage.branches > 0) & some
    return result


def shares(usage: Usage) -> dict[str, Array]:
    """Share of each part that ran, over all blocks, of each image: `[B]`, 0..1."""
    return {name: part.mean((0, 2)) for name, part in ran(usage).items()}
