"""Depth priors: where tokens should halt, and how far they are from halting there.

A-ViT (Yin et al., CVPR 2022, arXiv 2112.07658) pulls the distribution of halting depths towards a
target distribution. `depth_prior` makes the target from a family or a mixture of them;
`divergence` measures the distance of the mean halting scores from it. docs/priors.md has formulas.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.errors import UserError
from avit_jax.methods.avit.prior_compat import borgi_log_density, nvlabs
from avit_jax.methods.avit.prior_families import (
    FAMILIES,
    LARGEST,
    LOWEST_TARGET,
    SMALLEST,
    Component,
    softmax,
)

COMPATS = ("nvlabs", "borgi")
COMPONENT_KEYS = ("name", "target_depth", "scale", "df", "skew", "weight")
# Mean scores all below this count as 0: float32 cannot hold the gradients of their distribution.
SMALLEST_SCORE = 1e-30


def depth_prior(
    depth: int,
    prior: str | Sequence[Mapping[str, Any]] = "gaussian",
    *,
    target_depth: float,
    scale: float = 1.0,
    df: float = 3.0,
    skew: float = 4.0,
    compat: str | None = None,
) -> np.ndarray:
    """Target probability of halting at each layer, `[L]` float64, summing to 1.

    Args:
        depth: number of layers L, at least 1.
        prior: a family of `prior_families.FAMILIES`, or a mixture: a list of
          `dict(name=..., target_depth=..., scale=..., df=..., skew=..., weight=...)`. All but the
          name may be left out; a weight (1 if left out) is the component's share of all halting.
        target_depth: location in layers counted from 1, also between or beyond the layers: mean of
          gaussian, laplace and geometric, median of student_t, cauchy and lognormal, mode of
          skew_normal. Has no effect on uniform.
        scale: width in layers: the standard deviation, for cauchy the half-width at half height,
          for student_t with df <= 2 the scale parameter. Has no effect on geometric and uniform.
        df: degrees of freedom of student_t.
        skew: shape alpha of skew_normal, positive for a long tail towards deep layers.
        compat: "nvlabs" or "borgi" for the targets of these implementations (see `prior_compat`):
          not normalised, and under "nvlabs" with that code's own count of `target_depth`, from 0.

    Raises:
        UserError: (a ValueError) naming the value that is unknown or out of range.
    """
    if isinstance(depth, bool) or not isinstance(depth, numbers.Integral) or depth < 1:
        raise UserError(f"depth is {depth!r}: a prior needs a whole number of layers from 1.")
    if compat is not None and compat not in COMPATS:
        raise UserError(f"prior_compat {compat!r} is unknown: write None, 'nvlabs' or 'borgi'.")
    depth = operator.index(depth)
    defaults = {"target_depth": target_depth, "scale": scale, "df": df, "skew": skew}
    parts = components(prior, defaults)
    if compat == "nvlabs":
        if len(parts) > 1:
            raise UserError(
                f"prior has {len(parts)} components, but prior_compat 'nvlabs' knows no mixtures: "
                "write one family, or prior_compat None."
            )
        return nvlabs(parts[0], depth)
    if compat == "borgi":
        return np.exp(borgi_log_density(parts, depth))
    layers = np.arange(1, depth + 1, dtype=np.float64)
    # Each component is normalised over the layers before it is mixed in, so that a weight is the
    # share that its component really gets, wherever its target lies.
    shares = [part.weight * softmax(FAMILIES[part.name](layers, part)) for part in parts]
    return np.sum(shares, axis=0) / sum(part.weight for part in parts)


def components(
    prior: str | Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]
) -> list[Component]:
    """The checked components of `prior`, with `defaults` for what they leave out."""
    if isinstance(prior, str):
        return [component("prior", {"name": prior}, defaults)]
    try:
        mixture = [dict(part) for part in prior]
    except (TypeError, ValueError):
        mixture = []
    if not mixture:
        raise UserError(
            f"prior is {prior!r}: write one of {', '.join(FAMILIES)}, or a list of components like "
            'dict(name="gaussian", target_depth=2.0, weight=0.7).'
        )
    return [component(f"prior[{i}]", part, defaults) for i, part in enumerate(mixture)]


def component(label: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Component:
    """One checked component; `label` says in messages where it stands."""
    unknown = sorted(set(given) - set(COMPONENT_KEYS), key=str)
    if unknown:
        raise UserError(
            f"{label} has the unknown key {unknown[0]!r}: write {', '.join(COMPONENT_KEYS)}."
        )
    name = given.get("name")
    if not isinstance(name, str) or name not in FAMILIES:
        found = f"name {name!r}, which is unknown" if "name" in given else "no name"
        raise UserError(f"{label} has {found}: write one of {', '.join(FAMILIES)}.")
    values = {"weight": 1.0, **defaults, **given}
    lowest = {"target_depth": LOWEST_TARGET.get(name, -LARGEST), "skew": -LARGEST}
    for key in COMPONENT_KEYS[1:]:
        low, value = lowest.get(key, SMALLEST), values[key]
        # A comparison with NaN is false, so NaN is refused as well.
        number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not (number and low <= value <= LARGEST):
            raise UserError(
                f"{label} {name!r} has {key} {value!r}: write a number from {low:g} to {LARGEST:g}."
            )
        values[key] = float(value)
    return Component(**values)


def divergence(
    target: np.ndarray | Array, scores: Array, *, clip: tuple[float, float] = (0.01, 0.99)
) -> Array:
    """Kullback-Leibler divergence of halting from its target, `1/L sum_l T_l (log T_l - log p_l)`.

    p = scores / sum(scores) is clipped but not normalised again, as published, and a clipped entry
    passes no gradient; layers with T_l = 0 count 0. Where all scores are 0, so is p: the value is
    that of p = clip[0] everywhere, and the gradient is 0. A model of one layer has p = 1, hence the
    constant value -log(clip[1]) for T = 1, about 0.01. Clipping, or a target that does not sum to
    1, can make the value negative. NaN scores give NaN.

    Args:
        target: `[L]`, not negative; need not sum to 1.
        scores: `[L]`, not negative: mean halting score per layer, in any unit.
        clip: range of p: (0.01, 0.99) in A-ViT's published code, (0.001, 0.999) in Borgi's.

    Returns:
        A float32 scalar in nats per layer.

    Raises:
        ValueError: shapes that differ, or a clipping range outside 0 < low < high <= 1.
    """
    target, scores = jnp.asarray(target, jnp.float32), jnp.asarray(scores, jnp.float32)
    if target.ndim != 1 or target.shape != scores.shape:
        raise UserError(
            f"target has shape {target.shape} and scores {scores.shape}: pass two of shape [L]."
        )
    low, high = clip
    if not 0.0 < low < high <= 1.0:
        raise UserError(f"clip is {clip}: write a range with 0 < low < high <= 1.")
    # p is the same in any unit: with the largest score as the unit, no sum or square underflows.
    peak = jax.lax.stop_gradient(scores.max())
    all_zero = peak < SMALLEST_SCORE
    scores = scores / jnp.where(all_zero, 1.0, peak)
    p = scores / jnp.where(all_zero, 1.0, scores.sum())
    inside = (p >= low) & (p <= high)
    clipped = jnp.where(inside, p, jnp.clip(jax.lax.stop_gradient(p), low, high))
    present = target >= jnp.finfo(jnp.float32).tiny  # smaller numbers are 0 on some hardware
    log_target = jnp.log(jnp.where(present, target, 1.0))
    return jnp.where(present, target * (log_target - jnp.log(clipped)), 0.0).mean()
