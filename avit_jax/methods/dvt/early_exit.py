"""Which exit answers for an image: the first that is sure enough, else the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.types import Usage


class Exits(NamedTuple):
    """What the confidences of a batch decide.

    Attributes:
        reached: `[E, B]` bool, whether an exit runs for an image.
        logits: `[B, C]`, of the exit that answers.
        margin: `[B]`, the least distance of a confidence from its threshold among those that were
            asked; as large as can be where none was.
    """

    reached: Array
    logits: Array
    margin: Array


def confidence(logits: Array) -> Array:
    """The largest probability, `[..., B]` float32, of logits `[..., B, C]`."""
    return jax.nn.softmax(logits.astype(jnp.float32)).max(-1)


def decide(logits: Array, thresholds: Sequence[Array | float]) -> Exits:
    """The first exit whose confidence is at least its threshold answers.

    Args:
        logits: `[E, B, C]` of all exits.
        thresholds: of all exits but the last; a confidence that is no number reaches none.
    """
    reached = [jnp.ones(logits.shape[1], bool)]
    answer, margin = logits[-1], jnp.full(logits.shape[1], jnp.finfo(jnp.float32).max)
    for at, threshold in zip(logits[:-1], thresholds, strict=True):
        sure = confidence(at) - threshold
        margin = jnp.where(reached[-1], jnp.minimum(margin, jnp.abs(sure)), margin)
        answer = jnp.where((reached[-1] & (sure >= 0))[:, None], at, answer)
        reached.append(reached[-1] & ~(sure >= 0))
    return Exits(jnp.stack(reached), answer, margin)


def usage_of(usage: Usage, reached: Array) -> Usage:
    """What ran in an exit for the images `[B]` bool that reached it; nothing for the others."""
    return jax.tree.map(lambda ran: ran & reached[:, None], usage)
