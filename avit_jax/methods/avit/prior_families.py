"""The families of depth distributions: log-densities of the layer at which a token halts.

A prior is a density in the layer number, read off at layers 1..L. Densities stay in logarithms, and
in float64, so that the relative odds of the layers survive where every density itself underflows.
A-ViT (Yin et al., CVPR 2022, arXiv 2112.07658) uses a Gaussian; a geometric prior is PonderNet's
(Banino et al. 2021, arXiv 2107.05407); the skew-normal is Azzalini's (Scand. J. Stat. 12, 1985).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

LARGEST = 1e6  # of any number that describes a prior
SMALLEST = 1e-6  # of those that must be positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """One peak of a depth prior; lengths are in layers.

    Attributes:
        name: a key of `FAMILIES`.
        target_depth: location, layers counted from 1.
        scale: width.
        df: degrees of freedom (student_t only).
        skew: shape alpha (skew_normal only).
        weight: share in a mixture, relative to the other weights.
    """

    name: str
    target_depth: float
    scale: float
    df: float
    skew: float
    weight: float = 1.0


def standard_gaussian(z: np.ndarray) -> np.ndarray:
    """Log-density of the Gaussian with mean 0 and standard deviation 1."""
    return -0.5 * z**2 - 0.5 * math.log(2.0 * math.pi)


def standard_laplace(z: np.ndarray) -> np.ndarray:
    """Log-density of the Laplace distribution with location 0 and scale parameter 1."""
    return -np.abs(z) - math.log(2.0)


def standard_student_t(z: np.ndarray, df: float) -> np.ndarray:
    """Log-density of Student's t with location 0 and scale parameter 1; df = 1 is Cauchy's."""
    constant = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(df * math.pi)
    return constant - (df + 1.0) / 2.0 * np.log1p(z**2 / df)


def standard_skew_normal(z: np.ndarray, alpha: float) -> np.ndarray:
    """Log-density of the skew-normal with location 0, scale parameter 1 and shape alpha."""
    # SciPy is imported where it is needed: most priors do without, and it takes a second.
    from scipy.special import log_ndtr

    return math.log(2.0) + standard_gaussian(z) + log_ndtr(alpha * z)


def standard_skew_normal_mode(alpha: float) -> float:
    """Mode of the skew-normal with location 0 and scale parameter 1, to 1e-14."""
    from scipy.optimize import brentq
    from scipy.special import log_ndtr

    steepness = abs(alpha)

    def slope(z: float) -> float:
        """Derivative of the log-density: positive at 0, negative at 1, for any steepness > 0."""
        return steepness * math.exp(standard_gaussian(steepness * z) - log_ndtr(steepness * z)) - z

    mode = brentq(slope, 0.0, 1.0, xtol=1e-14) if steepness else 0.0
    return math.copysign(mode, alpha)


def gaussian(layers: np.ndarray, part: Component) -> np.ndarray:
    """Mean at the target, standard deviation `scale`."""
    return standard_gaussian((layers - part.target_depth) / part.scale) - math.log(part.scale)


def laplace(layers: np.ndarray, part: Component) -> np.ndarray:
    """Mean at the target, standard deviation `scale`."""
    width = part.scale / math.sqrt(2.0)
    return standard_laplace((layers - part.target_depth) / width) - math.log(width)


def student_t(layers: np.ndarray, part: Component) -> np.ndarray:
    """Median at the target, standard deviation `scale`, or scale parameter `scale` if df <= 2."""
    width = part.scale * (math.sqrt((part.df - 2.0) / part.df) if part.df > 2.0 else 1.0)
    return standard_student_t((layers - part.target_depth) / width, part.df) - math.log(width)


def cauchy(layers: np.ndarray, part: Component) -> np.ndarray:
    """Median at the target, `scale` half of the full width at half the height."""
    z = (layers - part.target_depth) / part.scale
    return standard_student_t(z, 1.0) - math.log(part.scale)


def lognormal(layers: np.ndarray, part: Component) -> np.ndarray:
    """Median at the target, standard deviation `scale` in layers (not of the logarithm)."""
    # The variance is target^2 (u^2 - u) with u = exp(sigma^2). It is solved for u - 1 in a form
    # that does not subtract nearly equal numbers.
    ratio = part.scale / part.target_depth
    sigma = math.sqrt(math.log1p(2.0 * ratio**2 / (1.0 + math.sqrt(1.0 + 4.0 * ratio**2))))
    z = (np.log(layers) - math.log(part.target_depth)) / sigma
    return standard_gaussian(z) - math.log(sigma) - np.log(layers)


def skew_normal(layers: np.ndarray, part: Component) -> np.ndarray:
    """Mode at the target, standard deviation `scale`; the long tail is deeper if `skew` > 0."""
    delta = part.skew / math.hypot(1.0, part.skew)
    width = part.scale / math.sqrt(1.0 - 2.0 * delta**2 / math.pi)
    z = (layers - part.target_depth) / width + standard_skew_normal_mode(part.skew)
    return standard_skew_normal(z, part.skew) - math.log(width)


def geometric(layers: np.ndarray, part: Component) -> np.ndarray:
    """Constant odds between neighbouring layers, and the mean *over these layers* at the target.

    A target at or beyond the first or last layer puts everything into that layer, since no other
    distribution has such a mean. Not normalised, unlike the densities above.
    """
    from scipy.optimize import brentq

    steps = layers - layers[0]

    def excess(log_odds: float) -> float:
        return float(softmax(log_odds * steps) @ layers) - part.target_depth

    steepest = 800.0  # its exponential is 0 in float64
    if excess(-steepest) >= 0.0:
        return -steepest * steps
    if excess(steepest) <= 0.0:
        return steepest * steps
    return brentq(excess, -steepest, steepest, xtol=1e-13) * steps


def uniform(layers: np.ndarray, part: Component) -> np.ndarray:
    """The same for every layer, whatever target and scale."""
    del part
    return np.zeros_like(layers)


def softmax(log_density: np.ndarray) -> np.ndarray:
    """Normalises log-densities over their layers."""
    odds = np.exp(log_density - log_density.max())
    return odds / odds.sum()


FAMILIES: dict[str, Callable[[np.ndarray, Component], np.ndarray]] = {
    "gaussian": gaussian,
    "laplace": laplace,
    "student_t": student_t,
    "cauchy": cauchy,
    "lognormal": lognormal,
    "skew_normal": skew_normal,
    "geometric": geometric,
    "uniform": uniform,
}
# Smallest target_depth of the families that live on one side of a bound.
LOWEST_TARGET = {"lognormal": SMALLEST, "geometric": 1.0}
