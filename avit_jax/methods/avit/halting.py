"""Cumulative halting scores: the arithmetic of adaptive computation time, and nothing else.

Each token collects a score per layer and halts once the sum passes `1 - eps` (Graves 2016,
arXiv 1603.08983; for vision transformers Yin et al., CVPR 2022, arXiv 2112.07658). Its output is
the mean of its states weighted by the scores, in which the *remainder* (what is missing to 1)
takes the place of the last score, so that the weights of every token sum to 1.

Masks and counters carry no gradient; scores and remainders do.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jax import Array

# Of the tokens, to which blocks add their updates, whatever the dtype of their arithmetic. Scores
# are read from one channel of that sum, where gates set for pretrained weights expect 3 to 7.5;
# bfloat16 has steps of 1/32 there, which `gate_scale` makes 0.3 of a logit.
STREAM = jnp.float32


@struct.dataclass(kw_only=True)
class Halting:
    """State of every token between two layers; all `[B, N]`, float32 except `live`.

    Attributes:
        live: bool, the token takes part in the next layer.
        cumulative: sum of the scores so far; goes on growing after the token has halted.
        remainder: 1 minus the scores spent so far; frozen once the token has halted.
        ponder: layers executed, plus the remainder once the token has halted.
        halting_depth: the layer that the token halts behind, from 1, whether or not an image that
          is finished earlier lets it get there.
    """

    live: Array
    cumulative: Array
    remainder: Array
    ponder: Array
    halting_depth: Array


def start(shape: tuple[int, int]) -> Halting:
    """The state in front of layer 1 for `shape` = (B, N): every token live, nothing spent."""
    ones = jnp.ones(shape, jnp.float32)
    zeros = jnp.zeros(shape, jnp.float32)
    return Halting(
        live=jnp.ones(shape, bool),
        cumulative=zeros,
        remainder=ones,
        ponder=zeros,
        halting_depth=ones,
    )


def step(
    halting: Halting,
    score: Array,
    *,
    eps: float,
    along: Callable[[Array], Array] | None = None,
) -> tuple[Halting, Array]:
    """Account for one executed layer.

    Args:
        halting: state in front of the layer.
        score: `[B, N]` float32, this layer's halting score; 1 everywhere in the last layer.
        eps: a token halts once its cumulative score is above `1 - eps`.
        along: from the tokens that their scores end in this layer, `[B, N]` bool, to tokens that
            halt with them, if they are live and would go on. They take their remainder here, too.

    Returns:
        The state behind the layer, and `[B, N]` weights with which the layer's token states enter
        the tokens' outputs: the score while a token goes on, the remainder where it halts, 0
        afterwards.
    """
    live = halting.live.astype(jnp.float32)
    cumulative = halting.cumulative + score
    # Strict on both sides, as published: exactly 1 - eps neither goes on nor emits its remainder.
    # A score that is NaN is no reason to halt: the token would be gone and the answer finite.
    goes_on = halting.live & ~(cumulative >= 1.0 - eps)
    halts = cumulative > 1.0 - eps
    if along is not None:
        taken = goes_on & along(halting.live & ~goes_on)
        goes_on, halts = goes_on & ~taken, halts | taken
    goes_on_ = goes_on.astype(jnp.float32)
    halts_ = live * halts.astype(jnp.float32)
    weight = live * (halting.remainder * halts_ + score * goes_on_)
    after = Halting(
        live=goes_on,
        cumulative=cumulative,
        remainder=halting.remainder - score * goes_on_,
        ponder=halting.ponder + live + halting.remainder * halts_,
        halting_depth=halting.halting_depth + goes_on_,
    )
    return after, weight


def contribution(live: Array, weight: Array, states: Array) -> Array:
    """What one layer adds to the prefix tokens' outputs, `[B, prefix, D]` float32.

    A token that does not run adds nothing, whatever lies in its place: not even NaN may come
    through. One that runs adds its weighted state, whatever that is: every NaN must come through,
    so weights of 0 are no reason to leave it out.

    Args:
        live: `[B, N]` bool, tokens that ran.
        weight: `[B, N]` float32, from `step`.
        states: `[B, prefix, D]` behind the layer.
    """
    prefix = states.shape[1]
    weighted = weight[:, :prefix, None] * states.astype(jnp.float32)
    return jnp.where(live[:, :prefix, None], weighted, 0.0)
