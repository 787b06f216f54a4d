"""Yes-or-no decisions that gradients pass through: the Gumbel-sigmoid with a straight-through step.

Adding logistic noise (the difference of two Gumbel samples) to a logit before thresholding draws a
Bernoulli decision; the backward pass differentiates a sigmoid of the noisy logit in its place
(Jang et al., arXiv 1611.01144; Maddison et al., arXiv 1611.00712).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Differences of two Gumbel samples, float32: what `decide` adds to logits in training."""
    return jax.random.logistic(key, shape, jnp.float32)


def decide(
    logits: Array,
    *,
    threshold: float,
    noise: Array | None = None,
    temperature: Array | float = 1.0,
) -> Array:
    """Decisions of `logits`, exactly 0 or 1, float32; yes where they are NaN.

    What nobody can decide about runs, so that NaN comes through and is not dropped unseen.

    Args:
        logits: any shape, float32.
        threshold: of the probability above which the answer is yes.
        noise: in training, of the logits' shape; without it the decision is that of inference, and
          the gradient is 0.
        temperature: width of the sigmoid behind the noise. With a threshold other than 0.5 it moves
          the decision, too, as published.
    """
    if noise is None:
        return (~(jax.nn.sigmoid(logits) <= threshold)).astype(jnp.float32)
    soft = jax.nn.sigmoid((logits + noise) / temperature)
    return (soft > threshold).astype(jnp.float32) + (soft - jax.lax.stop_gradient(soft))
