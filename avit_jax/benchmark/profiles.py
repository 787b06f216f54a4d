"""Synthetic profiles: weights and images that skip as much as asked, to measure speed by.

Nothing in the program is special: only weights and images are chosen so that the method's own rule
leaves the wanted share of the multiply-adds. How, says the module of each method.
"""

from __future__ import annotations

import numpy as np

from avit_jax.benchmark import halting_profiles, policy_profiles
from avit_jax.errors import UserError
from avit_jax.methods import adavit, avit
from avit_jax.methods.base import Model
from avit_jax.models.module import Params

NAMES = ("paper", "half", "none")
_WAYS = {avit.Model: halting_profiles, adavit.Model: policy_profiles}


def script(model: Model, name: str, batch_size: int, *, seed: int = 0) -> tuple[Params, np.ndarray]:
    """Parameters and images `[B, H, W, 3]` that use a named share of the dense GMACs.

    Args:
        model: of a method that has such profiles.
        name: "paper" for what the method's authors report, "half", or "none" to skip nothing.
        batch_size: B.
        seed: of everything random.

    Raises:
        UserError: the method, its backbone or this width has no such profile.
    """
    way = _WAYS.get(type(model))
    if way is None:
        raise UserError(
            f"there are no synthetic profiles for {type(model).__module__.split('.')[-1]}: write "
            "\"('real',)\" into config.benchmark.profiles."
        )
    shares = {"half": 0.5, "none": 1.0}
    if model.shape.embed_dim in way.PAPER:
        shares["paper"] = way.PAPER[model.shape.embed_dim]
    if name not in shares:
        widths = " and ".join(map(str, way.PAPER))
        raise UserError(
            f"there is no profile {name!r} for embed_dim {model.shape.embed_dim}: write half, "
            f"none, real (this run's own weights) or, for widths {widths}, paper into "
            "config.benchmark.profiles."
        )
    return way.script(model, shares[name], batch_size, seed=seed)
