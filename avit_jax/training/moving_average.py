"""The moving average of the parameters that evaluation uses."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax import Array

from avit_jax.models.functional import Params


def followed(
    average: Params | None, params: Params, step: Array, decay: float, warmup: bool
) -> Params | None:
    """The average behind a step; `None` where there is none.

    Args:
        average: in front of the step.
        params: behind the step.
        step: number of steps before this one, t.
        decay: share of the average that stays, d.
        warmup: whether that is min(d, (1 + t) / (10 + t)). A short training ends before an average
          with a d such as 0.9999 has left its start, which here weighs little from the beginning
          (as `num_updates` of TensorFlow's ExponentialMovingAverage).
    """
    if average is None:
        return None
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step)) if warmup else decay
    return optax.incremental_update(params, average, 1.0 - kept)
