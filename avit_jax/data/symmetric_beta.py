"""Draws from Beta(alpha, alpha) without a loop: one uniform number, and a polynomial of it.

`jax.random.beta` draws until a draw is accepted, in loops of which nobody knows how often they run.
An accelerator waits for each, for a few numbers. The inverse of the distribution's own function
needs none of it. In terms of u^(1 / alpha) it is almost straight up to the median, even where the
density has no bound, so a polynomial has all digits of a float32; the other half mirrors it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import chebyshev

MOST_TERMS, NEGLIGIBLE = 96, 1e-8  # of the polynomial: 7 for an alpha of 0.8, 49 for one of 50


def draw(key: Array, alpha: float, shape: tuple[int, ...]) -> Array:
    """Draws from Beta(alpha, alpha), in float32.

    Args:
        key: of the draw.
        alpha: both parameters, above 0 (tested from 0.05 to 50).
        shape: of the draws.

    Returns:
        Numbers from 0 to 1. They are off by less than 1e-6 from what exact arithmetic makes of the
        same uniform numbers.
    """
    uniform = jax.random.uniform(key, shape, jnp.float32)  # float32 also under JAX_ENABLE_X64
    is_upper = uniform >= 0.5
    share = 2.0 * jnp.where(is_upper, 1.0 - uniform, uniform)  # of the way to the median
    place = 2.0 * share ** (1.0 / alpha) - 1.0
    # Clenshaw's sum of Chebyshev polynomials.
    first, *others = _lower_half(alpha)
    last = before = jnp.zeros_like(place)
    for factor in reversed(others):
        last, before = factor + 2.0 * place * last - before, last
    found = jnp.clip(first + place * last - before, 0.0, 0.5)
    return jnp.where(is_upper, 1.0 - found, found)


@functools.cache
def _lower_half(alpha: float) -> tuple[float, ...]:
    """Chebyshev coefficients of the quantile at u, in terms of 2 (2 u)^(1 / alpha) - 1."""
    from scipy.special import betaincinv  # slow to import, and only trainings that mix need it

    def quantile(place: np.ndarray) -> np.ndarray:
        return betaincinv(alpha, alpha, 0.5 * ((place + 1.0) / 2.0) ** alpha)

    terms = chebyshev.chebinterpolate(quantile, MOST_TERMS)
    return tuple(map(float, chebyshev.chebtrim(terms, NEGLIGIBLE)))
