"""Options of A-ViT, and the depth prior that they describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import Array

from avit_jax import validators
from avit_jax.errors import UserError
from avit_jax.methods import schedule
from avit_jax.methods.avit.priors import depth_prior

KL_READINGS = ("paper", "upstream", "halting")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of A-ViT.

    Attributes:
        gate_scale: slope of the halting score in channel 0. 10 for fine-tuning DeiT weights.
        gate_center: offset of the halting score: 30 (DeiT-T) or 75 (DeiT-S) for fine-tuning.
        eps: a token halts above a cumulative score of `1 - eps`.
        ponder_weight: weight of the mean ponder, which pulls all depths down.
        prior_weight: weight of the divergence from the depth prior.
        prior: family of the depth prior or a list of components (mixture), see `priors.py`.
        target_depth: where the prior is centred, in layers counted from 1.
        scale: width of the prior, in layers.
        df: degrees of freedom (student_t).
        skew: shape (skew_normal).
        prior_compat: `None` (a proper distribution), "nvlabs" or "borgi" (as published).
        kl_reading: what is compared with the prior. "paper": the mean score of each layer over the
          patches of all images. "upstream": as the published code slices them, over all tokens of
          all images but the first. "halting": the mean weight of each layer in its patches'
          outputs, which is the distribution of halting itself; unlike the other two it ignores the
          scores that halted tokens go on producing, so it holds the depths where the prior wants
          them even where all tokens would rather halt at once, as they would from scratch.
        dense_until: share of the training, 0..1, in which nothing halts yet. For training from
          scratch, where gates set for pretrained weights would collapse all tokens to one depth.
        ramp: share of the training in which halting scores and penalties then rise from 0 to full.
    """

    gate_scale: float = dataclasses.field(default=10.0, metadata={"use": True})
    gate_center: float = dataclasses.field(default=30.0, metadata={"use": True})
    eps: float = dataclasses.field(default=0.01, metadata={"use": True})
    ponder_weight: float = 5e-4
    prior_weight: float = 1e-3
    prior: str | Sequence[Mapping[str, Any]] = "gaussian"
    target_depth: float = 9.0
    scale: float = 1.0
    df: float = 3.0
    skew: float = 4.0
    prior_compat: str | None = None
    kl_reading: str = "paper"
    dense_until: float = 0.0
    ramp: float = 0.0

    def __post_init__(self):
        validators.one_of(KL_READINGS, self, "kl_reading")
        validators.finite(self, "gate_scale", "gate_center")
        validators.not_negative(self, "ponder_weight", "prior_weight")
        validators.between_zero_and_one(self, "eps")
        schedule.check(dense_until=self.dense_until, ramp=self.ramp)
        if isinstance(self.prior, Sequence) and not isinstance(self.prior, str):
            # Hashable, so that models can be compared and their skeletons cached.
            object.__setattr__(self, "prior", tuple(map(_frozen, self.prior)))

    def strength(self, progress: Array | float) -> Array:
        """How far halting is switched on, 0..1, at a share of the training."""
        return schedule.strength(progress, dense_until=self.dense_until, ramp=self.ramp)

    def layers(self, depth: int) -> int:
        """Layers that run of `depth`, the last of which ends every token."""
        return depth

    def depth_prior(self, depth: int) -> np.ndarray:
        """The target distribution over `depth` layers, `[L]`; no array of JAX.

        Models are made before `jax.distributed` is initialised, which must come first.
        """
        is_mixture = isinstance(self.prior, tuple)
        prior = [dict(part) for part in self.prior] if is_mixture else self.prior
        target = depth_prior(
            depth,
            prior,
            target_depth=self.target_depth,
            scale=self.scale,
            df=self.df,
            skew=self.skew,
            compat=self.prior_compat,
        )
        return np.asarray(target, np.float32)


def _frozen(component: Any) -> tuple[tuple[str, Any], ...]:
    """One component of a mixture, a mapping or its pairs, as sorted pairs."""
    try:
        return tuple(sorted(dict(component).items()))
    except (TypeError, ValueError):
        raise UserError(
            f"a component of the prior is {component!r}: write a mixture as a list of "
            'dict(name="gaussian", target_depth=2.0, scale=1.0, weight=0.7).'
        ) from None
