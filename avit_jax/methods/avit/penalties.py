"""What halting adds to the loss: the mean ponder, and the divergence from the depth prior."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.methods.avit import halting
from avit_jax.methods.avit.priors import divergence
from avit_jax.methods.avit.settings import Settings
from avit_jax.models.shape import Shape

Named = dict[str, Array]


def penalties(
    shape: Shape, settings: Settings, record: Named, state: halting.Halting, strength: Array
) -> tuple[Named, Named]:
    """Weighted penalties, and the plain quantities behind them.

    Args:
        shape: of the network.
        settings: of the method.
        record: per layer, see `halting_profile`.
        state: behind the last layer.
        strength: how far halting is switched on.
    """
    ponder = state.ponder.mean()
    target = jnp.asarray(settings.depth_prior(shape.depth))
    distance = divergence(target, halting_profile(shape, settings, record))
    weighted = {
        "ponder": strength * settings.ponder_weight * ponder,
        # Only where positive, as published: targets that are no distributions may go below 0, and
        # the upstream reading of a batch of one is NaN.
        "prior": strength * settings.prior_weight * jnp.where(distance > 0, distance, 0.0),
    }
    return weighted, {"ponder": ponder, "prior_divergence": distance}


def halting_profile(shape: Shape, settings: Settings, record: Named) -> Array:
    """What is compared with the prior, in the chosen reading: a quantity per layer, `[L]`.

    Args:
        shape: of the network.
        settings: of the method.
        record: `halting_scores` and `weights`, `[L, B, N]`.
    """
    if settings.kl_reading == "upstream":
        return record["halting_scores"][:, 1:].mean((1, 2))  # NaN for a batch of one, as theirs
    name = "weights" if settings.kl_reading == "halting" else "halting_scores"
    return record[name][:, :, shape.num_prefix_tokens :].mean((1, 2))
