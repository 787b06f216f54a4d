"""Synthetic profiles: weights and images that skip as much as asked, to measure speed by.

Nothing in the program is special: only weights and images are chosen so that the method's own rule
leaves the wanted share of the multiply-adds. How, says each method (`Model.synthetic`).
"""

from __future__ import annotations

import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params


def sensible(model: Model) -> tuple[str, ...]:
    """Profiles to measure where none is asked for: "paper" and "half", or else "real"."""
    return tuple(name for name in ("paper", "half") if name in model.synthetic_profiles()) or (
        "real",
    )


def script(model: Model, name: str, batch_size: int, *, seed: int = 0) -> tuple[Params, np.ndarray]:
    """Parameters and images `[B, H, W, 3]` that use a named share of the dense GMACs.

    Args:
        model: of a method that has such profiles.
        name: of one, see `Model.synthetic_profiles`.
        batch_size: B.
        seed: of everything random.

    Raises:
        UserError: this model has no such profile.
    """
    known = model.synthetic_profiles()
    if name not in known:
        raise UserError(
            f"this model has no synthetic profile {name!r}: write some of "
            f"{', '.join([*known, 'real'])} into config.benchmark.profiles, where real is this "
            "run's own weights and images."
        )
    return model.synthetic(known[name], batch_size, seed=seed)
