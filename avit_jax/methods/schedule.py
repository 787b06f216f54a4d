"""How far something is switched on at a share of the training: off, a linear rise, fully on."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.errors import UserError


def strength(progress: Array | float, *, dense_until: float, ramp: float) -> Array:
    """0..1 at the share `progress` of the training, float32.

    Args:
        progress: 0..1.
        dense_until: share in which nothing is switched on.
        ramp: share in which it then rises from 0 to 1.
    """
    if not dense_until and not ramp:
        return jnp.float32(1.0)
    rise = (progress - dense_until) / max(ramp, 1e-6)
    return jnp.clip(jnp.asarray(rise, jnp.float32), 0.0, 1.0)


def check(*, dense_until: float, ramp: float) -> None:
    """Refuse what is no share.

    Raises:
        UserError: a share below 0, or both together above 1.
    """
    if not (0.0 <= dense_until <= 1.0 and 0.0 <= ramp <= 1.0 - dense_until):
        raise UserError(
            f"dense_until {dense_until} and ramp {ramp} are shares of the training: "
            "both at least 0, together at most 1."
        )
