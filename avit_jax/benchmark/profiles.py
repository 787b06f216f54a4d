"""Synthetic profiles: weights and images that skip as much as asked, to measure speed by.

Nothing in the program is special: only weights and images are chosen so that the method's own rule
leaves the wanted share of the multiply-adds. How, says the module of each method.
"""

from __future__ import annotations

import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods import adavit, avit
from avit_jax.methods.adavit import synthetic as policy_profiles
from avit_jax.methods.avit import synthetic as halting_profiles
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params

_WAYS = {avit.Model: halting_profiles, adavit.Model: policy_profiles}


def sensible(model: Model) -> tuple[str, ...]:
    """Profiles to measure where none is asked for: "paper" and "half", or else "real"."""
    return tuple(name for name in ("paper", "half") if name in shares(model)) or ("real",)


def shares(model: Model) -> dict[str, float]:
    """The named synthetic profiles of a model, as shares of the dense GMACs."""
    way, shape = _WAYS.get(type(model)), model.shape
    if way is None or not way.possible(model):
        return {}
    paper = way.PAPER.get((shape.embed_dim, shape.depth))
    return ({} if paper is None else {"paper": paper}) | {"half": 0.5, "none": 1.0}


def script(model: Model, name: str, batch_size: int, *, seed: int = 0) -> tuple[Params, np.ndarray]:
    """Parameters and images `[B, H, W, 3]` that use a named share of the dense GMACs.

    Args:
        model: of a method that has such profiles.
        name: "paper" for what the method's authors report, "half", or "none" to skip nothing.
        batch_size: B.
        seed: of everything random.

    Raises:
        UserError: this model has no such profile.
    """
    known = shares(model)
    if name not in known:
        raise UserError(
            f"this model has no synthetic profile {name!r}: write some of "
            f"{', '.join([*known, 'real'])} into config.benchmark.profiles, where real is this "
            "run's own weights and images."
        )
    return _WAYS[type(model)].script(model, known[name], batch_size, seed=seed)
