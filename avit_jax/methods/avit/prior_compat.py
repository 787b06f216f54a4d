"""Depth targets as two published implementations compute them, for reproducing their runs.

Neither is a probability distribution over the layers, so the divergence from it can be negative.

* "nvlabs": the code that accompanies A-ViT (Yin et al., CVPR 2022, arXiv 2112.07658). Densities are
  read at k = 0..L-1 for layers 1..L, so that target depth d peaks at layer d + 1, and are scaled to
  0.98 over the first d entries.
* "borgi": the re-implementation github.com/alessioborgi/AdaViT. Densities at x = 1..L, as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.avit.prior_families import (
    Component,
    standard_gaussian,
    standard_laplace,
    standard_skew_normal,
    standard_student_t,
)

NVLABS_LOGNORMAL_SIGMA = 0.99
NVLABS_SKEW = -4.0
BORGI_DF = 30.0


def nvlabs_log_density(name: str, depth: int, target_depth: float) -> np.ndarray:
    """Log-density `[L]` before any scaling; `target_depth` is the published code's own number d.

    The skew-normal is read at k = 1..L. The published one stops at L - 1, which no model can use.
    """
    k = np.arange(depth, dtype=np.float64)
    if name == "gaussian":
        return standard_gaussian(k - target_depth)
    if name == "lognormal":  # of k itself: the target only enters through `nvlabs_standardize`
        sigma = NVLABS_LOGNORMAL_SIGMA
        log_k = np.log(k[1:])
        inside = standard_gaussian(log_k / sigma) - math.log(sigma) - log_k
        return np.concatenate([[-np.inf], inside])
    return standard_skew_normal(k + 1.0 - target_depth, NVLABS_SKEW)


def nvlabs_standardize(
    log_density: np.ndarray, target_depth: float, *, buffer: float = 0.02
) -> np.ndarray:
    """Scales a density `[L]` so that its entries 0 <= k < d sum to 1 - `buffer`."""
    first = log_density[np.arange(len(log_density)) < target_depth]
    peak = first.max()
    log_sum = peak + math.log(np.exp(first - peak).sum())
    return np.exp(log_density - log_sum) * (1.0 - buffer)


def nvlabs(part: Component, depth: int) -> np.ndarray:
    """The target `[L]` of A-ViT's published code."""
    # At or below these targets the sum that the density is divided by is empty, or zero.
    lowest = {"gaussian": 0.0, "lognormal": 1.0, "skew_normal": -math.inf}
    if part.name not in lowest:
        raise UserError(
            f"prior {part.name!r} does not exist under prior_compat 'nvlabs': "
            f"write {', '.join(lowest)}, or prior_compat None."
        )
    if part.scale != 1.0:
        raise UserError(
            f"prior {part.name!r} has scale {part.scale:g}, but its width is fixed under "
            "prior_compat 'nvlabs': write scale 1.0, or prior_compat None."
        )
    if not part.target_depth > lowest[part.name]:
        raise UserError(
            f"prior {part.name!r} has target_depth {part.target_depth:g}: "
            f"write more than {lowest[part.name]:g} under prior_compat 'nvlabs'."
        )
    if part.name == "lognormal" and depth < 2:
        raise UserError(
            f"prior 'lognormal' is zero in layer 1 under prior_compat 'nvlabs' and the model has "
            f"{depth} layer: write prior_compat None, or give the model 2 layers or more."
        )
    log_density = nvlabs_log_density(part.name, depth, part.target_depth)
    if part.name == "skew_normal":  # never scaled in the published code
        return np.exp(log_density)
    return nvlabs_standardize(log_density, part.target_depth)


BORGI_FAMILIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gaussian": standard_gaussian,
    "laplace": standard_laplace,
    "student_t": lambda z: standard_student_t(z, BORGI_DF),
    "cauchy": lambda z: standard_student_t(z, 1.0),
}


def borgi_log_density(parts: list[Component], depth: int) -> np.ndarray:
    """Log of Borgi's density `[L]` at x = 1..L, a mixture where there are several parts.

    `scale` is the Gaussian's standard deviation; the others use scale / sqrt(2) as scale parameter.
    """
    x = np.arange(1, depth + 1, dtype=np.float64)
    total = sum(part.weight for part in parts)
    terms = []
    for part in parts:
        if part.name not in BORGI_FAMILIES:
            raise UserError(
                f"prior {part.name!r} does not exist under prior_compat 'borgi': "
                f"write {', '.join(BORGI_FAMILIES)}, or prior_compat None."
            )
        width = part.scale if part.name == "gaussian" else part.scale / math.sqrt(2.0)
        log_density = BORGI_FAMILIES[part.name]((x - part.target_depth) / width)
        terms.append(math.log(part.weight / total) + log_density - math.log(width))
    return np.logaddexp.reduce(terms, axis=0)
