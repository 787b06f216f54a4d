"""Which exit answers for an image: the first that is sure enough, else the last."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from avit_jax.methods.dvt.settings import Confidence
from avit_jax.types import Usage

FAR = float(jnp.finfo(jnp.float32).max)  # of a decision that there was not


def confidence(logits: Array, temperature: ArrayLike = 1.0) -> Array:
    """The largest probability, `[..., B]` float32, of logits `[..., B, C]` at a temperature."""
    return jax.nn.softmax(logits.astype(jnp.float32) / temperature).max(-1)


def sure(logits: Array, asked: Confidence) -> tuple[Array, Array]:
    """Which images leave, `[B]` bool, and how far each is from not doing what it does, `[B]`.

    Args:
        logits: `[B, C]` of an exit; an image whose confidence is no number stays.
        asked: by the exit; whoever is as confident leaves.
    """
    above = confidence(logits, asked.temperature) - asked.at_least
    return above >= 0, jnp.abs(above)


def usage_of(usage: Usage, reached: Array) -> Usage:
    """What ran in an exit for the images `[B]` bool that reached it; nothing for the others."""
    return jax.tree.map(lambda ran: ran & reached[:, None], usage)
