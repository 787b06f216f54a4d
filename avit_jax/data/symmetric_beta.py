"""Draws from Beta(alpha, alpha) without a loop: one uniform number, and a curve to look it up on.

`jax.random.beta` draws until a draw is accepted, in loops of which nobody knows how often they run.
An accelerator waits for each, for a few numbers. The inverse of the distribution's own function
needs none of it. In terms of u^(1 / alpha) it is almost straight up to the median, even where the
density has no bound, so a short table of it has all digits of a float32; the other half mirrors it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

CELLS = 4096  # of the table


def draw(key: Array, alpha: float, shape: tuple[int, ...]) -> Array:
    """Draws from Beta(alpha, alpha), in float32.

    Args:
        key: of the draw.
        alpha: both parameters, above 0 (tested from 0.05 to 50).
        shape: of the draws.

    Returns:
        Numbers from 0 to 1. They are off by less than 2e-6 from what exact arithmetic makes of the
        same uniform numbers.
    """
    uniform = jax.random.uniform(key, shape, jnp.float32)  # float32 also under JAX_ENABLE_X64
    is_upper = uniform >= 0.5
    share = 2.0 * jnp.where(is_upper, 1.0 - uniform, uniform)  # of the way to the median
    place = share ** (1.0 / alpha) * CELLS
    cell = jnp.minimum(place.astype(jnp.int32), CELLS - 1)
    table = jnp.asarray(_lower_half(alpha))
    start, end = table[cell], table[cell + 1]
    found = start + (end - start) * (place - cell)
    return jnp.where(is_upper, 1.0 - found, found)


@functools.cache
def _lower_half(alpha: float) -> np.ndarray:
    """Quantiles of the lower half `[CELLS + 1]`, at even steps of (2 u)^(1 / alpha) from 0 to 1."""
    from scipy.special import betaincinv  # slow to import, and only trainings that mix need it

    steps = np.linspace(0.0, 1.0, CELLS + 1)
    return betaincinv(alpha, alpha, 0.5 * steps**alpha).astype(np.float32)
