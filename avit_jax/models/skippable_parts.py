"""The parts of a model that a method may leave out, and what share of them ran.

Everything is read from `Usage`, so this holds for any method that skips tokens, heads or halves of
blocks. Shapes as in `types.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
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
        attended = True if usage.halves is None else usage.halves[..., :1] > 0
        result["heads"] = (usage.heads > 0) & attended & some
    if usage.halves is not None:
        result["halves"] = (usage.halves > 0) & some
    return result


def shares(stages: Sequence[Usage]) -> dict[str, Array]:
    """Share of each part that ran, over the blocks of all stages, of each image: `[B]`, 0..1."""
    found: dict[str, list[Array]] = {}
    for usage in stages:
        for name, part in ran(usage).items():
            found.setdefault(name, []).append(jnp.moveaxis(part, 1, 0).reshape(part.shape[1], -1))
    return {name: jnp.concatenate(parts, 1).mean(1) for name, parts in found.items()}
