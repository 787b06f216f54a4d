"""Thresholds of confidence that answer best at a budget, searched at that budget itself.

The published family (`exit_quotas.py`) says by one number how many images leave where, whoever
they are. Here the thresholds of any two exits are moved against each other, so that the cost stays
what it should be, for as long as the calibration images are answered better: coordinate ascent on
the surface of equal cost, which with one threshold is a point. Pure NumPy.

Few images say little, so that two things hold the search back. A threshold is one of at most `GRID`
quantiles, or follows from the cost. And an answer counts half as what it was, right or wrong, and
half as what the exit, once its temperature is fitted, thinks of it: a mean of fewer accidents.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from scipy.optimize import brentq

from avit_jax.methods.dvt import exit_quotas
from avit_jax.methods.dvt.settings import NEVER

GRID = 64
ROUNDS = 8
_ROUNDING = 1e-9
_RESOLUTION = 0.002  # of the budget: what counts as keeping to it
_POSITIONS = 1e-3, 1e5  # of the published family, from all at the first exit to all at the last


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """What there is to know of calibration images, of every exit, the exits in front.

    Attributes:
        confidences: `[E, n]` float32.
        worth: `[E, n]`, how good each exit's answer is, 0..1.
        gmacs: `[E, n]`, of an image that leaves there; rises along the exits.
    """

    confidences: np.ndarray
    worth: np.ndarray
    gmacs: np.ndarray

    def left(self, thresholds: np.ndarray) -> np.ndarray:
        """The exit of each image, `[n]`, with thresholds `[E - 1]`."""
        return exit_quotas.exits(self.confidences, np.append(thresholds, exit_quotas.EVERYBODY))

    def cost(self, thresholds: np.ndarray) -> float:
        """GMACs per image."""
        return float(_at(self.gmacs, self.left(thresholds)).mean())

    def answers(self, thresholds: np.ndarray) -> float:
        """How good the images' answers are, on average."""
        return float(_at(self.worth, self.left(thresholds)).mean())


def worth(confidences: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What answers count for in the search, `[E, n]`, of fitted confidences and `right` bool."""
    return (confidences + right) / 2


def published(images: Images, gmacs: float) -> np.ndarray:
    """Thresholds `[E - 1]` float32 of the published family that cost so much."""
    exits = len(images.confidences)
    end = _end(images, gmacs)
    if end is not None:
        return end

    def thresholds(position: float) -> np.ndarray:
        shares = exit_quotas.shares(position, exits)
        return np.minimum(exit_quotas.thresholds(images.confidences, shares)[:-1], NEVER)

    def excess(logarithm: float) -> float:
        return images.cost(thresholds(np.exp(logarithm))) - gmacs

    low, high = np.log(_POSITIONS)
    if excess(low) >= 0 or excess(high) <= 0:  # closer to an end than whole images are
        return thresholds(_POSITIONS[int(excess(low) < 0)])
    tried = {}

    def remembered(logarithm: float) -> float:
        tried[logarithm] = excess(logarithm)
        return tried[logarithm]

    brentq(remembered, low, high, xtol=1e-6)
    return thresholds(np.exp(min(tried, key=lambda one: abs(tried[one]))))


def search(images: Images, gmacs: float) -> np.ndarray:
    """Thresholds `[E - 1]` float32 that answer best at this cost per image; see the module.

    Args:
        images: to be answered.
        gmacs: per image.
    """
    end = _end(images, gmacs)
    if end is not None:
        return end
    inner = len(images.confidences) - 1
    best = _closest(images, _starts(images, gmacs), gmacs)
    for _ in range(ROUNDS):
        before = best
        for moved, follows in itertools.permutations(range(inner), 2):
            best = _better(images, best, _moves(images, best, moved, follows, gmacs), gmacs)
        if best is before:
            break
    return best


def _end(images: Images, gmacs: float) -> np.ndarray | None:
    """Where all leave at the first exit, or nobody does, because nothing else costs so much."""
    inner = len(images.confidences) - 1
    least, most = images.gmacs[0].mean(), images.gmacs[-1].mean()
    if gmacs <= least * (1 + _ROUNDING):
        return np.zeros(inner, np.float32)
    return np.full(inner, NEVER, np.float32) if gmacs >= most * (1 - _ROUNDING) else None


def _starts(images: Images, gmacs: float) -> list[np.ndarray]:
    """The published family's thresholds, and each one in turn set to what the cost asks for."""
    quotas, inner = published(images, gmacs), images.confidences[:-1]
    first = np.array([_apart(*pair) for pair in zip(inner, quotas, strict=True)], np.float32)
    return [first, *(_solved(images, first, index, gmacs) for index in range(len(first)))]


def _apart(confidences: np.ndarray, threshold: float) -> float:
    """The threshold at which the same of these images leave, and which none of them is close to."""
    ascending = np.unique(confidences)
    return np.append(0.0, between(ascending))[np.searchsorted(ascending, threshold)]


def _closest(images: Images, candidates: list[np.ndarray], gmacs: float) -> np.ndarray:
    return min(candidates, key=lambda one: abs(images.cost(one) - gmacs))


def _better(
    images: Images, own: np.ndarray, candidates: list[np.ndarray], gmacs: float
) -> np.ndarray:
    """The candidate that answers best and keeps to the cost, or `own`."""
    allowed = max(abs(images.cost(own) - gmacs), _RESOLUTION * gmacs)
    best, most = own, images.answers(own)
    for candidate in candidates:
        if abs(images.cost(candidate) - gmacs) > allowed:
            continue
        worth = images.answers(candidate)
        if worth > most:
            best, most = candidate, worth
    return best


def _moves(
    images: Images, thresholds: np.ndarray, moved: int, follows: int, gmacs: float
) -> list[np.ndarray]:
    """Thresholds with one at each quantile, and another that keeps the cost."""
    found = []
    for value in _quantiles(images.confidences[moved]):
        changed = thresholds.copy()
        changed[moved] = value
        found.append(_solved(images, changed, follows, gmacs))
    return found


def _quantiles(confidences: np.ndarray) -> np.ndarray:
    """Thresholds that divide these confidences `[n]` evenly, 0 and `NEVER` among them."""
    borders = between(np.unique(confidences))
    chosen = np.linspace(0, len(borders) - 1, min(GRID, len(borders))).astype(int)
    return np.unique(np.concatenate([[0.0], borders[chosen], [NEVER]])).astype(np.float32)


def between(ascending: np.ndarray) -> np.ndarray:
    """Midpoints of neighbours, and `NEVER` behind the last: which no rounding takes for either."""
    wide = ascending.astype(np.float64)
    return np.append((wide[:-1] + wide[1:]) / 2, NEVER).astype(np.float32)


def _solved(images: Images, thresholds: np.ndarray, index: int, gmacs: float) -> np.ndarray:
    """Thresholds with that of one exit such that the cost is as near to `gmacs` as can be."""
    never = thresholds.copy()
    never[index] = NEVER
    left = images.left(never)
    costs = _at(images.gmacs, left)
    here = np.flatnonzero(left > index)  # those for whom this exit has a say
    confidences = images.confidences[index, here]
    order = np.argsort(-confidences, kind="stable")
    saved = np.cumsum((costs[here] - images.gmacs[index, here])[order])
    totals = costs.sum() - np.append(0.0, saved)
    falling = confidences[order]
    # The threshold with which none, one, two, ... leave; where two are equally sure there is none.
    borders = np.append(between(falling[::-1])[::-1], 0.0) if len(here) else np.array([NEVER])
    possible = np.append(np.append(True, falling[1:] < falling[:-1]), True)[: len(borders)]
    misses = np.where(possible, np.abs(totals / len(costs) - gmacs), np.inf)
    never[index] = borders[misses.argmin()]
    return never


def _at(values: np.ndarray, exits: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, exits[None], 0)[0]
