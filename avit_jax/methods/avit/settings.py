"""Options of A-ViT, and the depth prior that they describe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from jax import Array

from avit_jax import validators
from avit_jax.errors import UserError
from avit_jax.methods import schedule
from avit_jax.methods.avit import spread
from avit_jax.methods.avit.priors import depth_prior

KL_READINGS = ("paper", "upstream", "halting")


def _of_use(default: Any) -> Any:
    """A setting that a trained model may be used with another value of."""
    return dataclasses.field(default=default, metadata={"use": True})


FARTHEST = 10  # target depths in units of all layers; a prior beyond has no weight on any


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
        layer_centers: what each layer adds to `gate_center`, one number for each; `None` for 0.
        learn_gates: whether such offsets are learnt beside them: parameters `gate_offsets`, 0 at
          first, in logits.
        min_depth: layers that every token runs. What it scores in them counts, but is held just
          below the threshold until then.
        max_depth: layers that any token runs at most, whatever holds it; those behind do not run
          at all, in training neither. `None` for all.
        halt_from: the first layer, from 1, whose scores count; those before are 0.
        class_tokens_halt: whether class tokens and the distillation token may halt before the last
          layer. `None` is as published: where there is one class token, it may.
        registers_halt: whether registers may halt before the last layer. Nobody reads them, so they
          end with their image in either case.
        spread: which neighbours on the patch grid halt with a patch that its own score halts, see
          `docs/methods.md`. One of "none" (or "identity"), "nearby", "cross", "diagonal", "dilated"
          (or "dilated-isotropic"), "square", "isotropic", "circle" and "double_square" (or
          "double-square"). They take their remainder and take nobody along.
        spread_share: share, 0..1, of the halting patches that do so.
        spread_decay: what each layer behind `spread_from` takes from that share.
        spread_from: the first layer, from 1, in which patches take others along.
        spread_until: the last such layer; `None` for the last of all.
        dense_until: share of the training, 0..1, in which nothing halts yet. For training from
          scratch, where gates set for pretrained weights would collapse all tokens to one depth.
        ramp: share of the training in which halting scores and penalties then rise from 0 to full.
    """

    gate_scale: float = _of_use(10.0)
    gate_center: float = _of_use(30.0)
    eps: float = _of_use(0.01)
    ponder_weight: float = 5e-4
    prior_weight: float = 1e-3
    prior: str | Sequence[Mapping[str, Any]] = "gaussian"
    target_depth: float = 9.0
    scale: float = 1.0
    df: float = 3.0
    skew: float = 4.0
    prior_compat: str | None = None
    kl_reading: str = "paper"
    layer_centers: tuple[float, ...] | None = _of_use(None)
    learn_gates: bool = False
    min_depth: int = _of_use(1)
    max_depth: int | None = _of_use(None)
    halt_from: int = _of_use(1)
    class_tokens_halt: bool | None = _of_use(None)
    registers_halt: bool = _of_use(False)
    spread: str = _of_use("none")
    spread_share: float = _of_use(1.0)
    spread_decay: float = _of_use(0.0)
    spread_from: int = _of_use(1)
    spread_until: int | None = _of_use(None)
    dense_until: float = 0.0
    ramp: float = 0.0

    def __post_init__(self):
        validators.one_of(KL_READINGS, self, "kl_reading")
        validators.finite(self, "gate_scale", "gate_center")
        validators.not_negative(self, "ponder_weight", "prior_weight")
        validators.between_zero_and_one(self, "eps")
        validators.at_least(1, self, "min_depth", "halt_from", "spread_from")
        validators.at_least(1, self, "max_depth", "spread_until", optional=True)
        validators.one_of(spread.NAMES, self, "spread")
        validators.share(self, "spread_share")
        validators.one_of((True, False), self, "class_tokens_halt", optional=True)
        validators.one_of((True, False), self, "learn_gates", "registers_halt")
        validators.not_negative(self, "spread_decay")
        if self.layer_centers is not None:
            object.__setattr__(self, "layer_centers", _numbers(self.layer_centers))
        schedule.check(dense_until=self.dense_until, ramp=self.ramp)
        if isinstance(self.prior, Sequence) and not isinstance(self.prior, str):
            # Hashable, so that models can be compared and their skeletons cached.
            object.__setattr__(self, "prior", tuple(map(_frozen, self.prior)))

    def strength(self, progress: Array | float) -> Array:
        """How far halting is switched on, 0..1, at a share of the training."""
        return schedule.strength(progress, dense_until=self.dense_until, ramp=self.ramp)

    def layers(self, depth: int) -> int:
        """Layers that run of `depth`, the last of which ends every token."""
        return depth if self.max_depth is None else min(self.max_depth, depth)

    def check(self, depth: int) -> None:
        """Raises UserError for rules that a network of so many layers cannot keep."""
        layers = self.layers(depth)
        names = ("max_depth", "min_depth", "halt_from", "spread_from", "spread_until")
        for name in names:
            value, most = getattr(self, name), depth if name == "max_depth" else layers
            if value is not None and not (isinstance(value, int) and 1 <= value <= most):
                raise UserError(
                    f"{name} is {value!r}, but {most} layers of this model run: write a whole "
                    f"number from 1 to {most}."
                )
        # Gaussians between or a little beyond the layers have their use; the published code counts
        # otherwise, and a mixture has depths of its own.
        far = isinstance(self.prior, str) and not self.prior_compat
        if far and not 0 < self.target_depth <= FARTHEST * depth:
            raise UserError(
                f"target_depth is {self.target_depth!r}: write a number above 0 and at most "
                f"{FARTHEST * depth}, for the {depth} layers of this model."
            )
        centers = self.layer_centers
        if centers is not None and len(centers) != depth:
            raise UserError(
                f"layer_centers has {len(centers)} numbers, but the model has {depth} layers: "
                "write one for each, or leave it out."
            )
        if self.spread_until is not None and self.spread_until < self.spread_from:
            raise UserError(
                f"spread_until is {self.spread_until}, but spread_from is {self.spread_from}: "
                "write a last layer that is not before the first."
            )

    @property
    def takes_along(self) -> bool:
        """Whether any patch takes its neighbours along."""
        return bool(spread.offsets_of(self.spread)) and self.spread_share > 0

    @property
    def draws_spread(self) -> bool:
        """Whether it is drawn which patches do."""
        return self.takes_along and (self.spread_share < 1 or self.spread_decay > 0)

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


def _numbers(values: Any) -> tuple[float, ...]:
    """Offsets of the layers' gates, hashable."""
    numbers = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if not numbers or not all(isinstance(n, Real) and math.isfinite(n) for n in numbers):
        raise UserError(
            f"layer_centers is {values!r}: write a finite number for each layer, or leave it out."
        )
    return tuple(map(float, numbers))
