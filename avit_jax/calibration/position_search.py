"""Where to turn a dial to for a given cost: Brent's root finding on remembered probes."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

TOLERANCE = 0.002  # of the wanted cost
_RESOLUTION = 1e-3


class Probes:
    """Costs at positions of a dial, each measured once.

    A dial spans many orders of magnitude, so it is searched in asinh(position): even steps near 0,
    which is the model's own setting, and even factors far from it.

    Args:
        cost: of a position. It rises with it, nearly always, and in small steps, being a mean over
            finitely many images.
        low: position of the least cost.
        high: position of the highest cost.

    Attributes:
        costs: at the positions measured so far.
        low: the measured position of the least cost.
        high: the measured position of the highest cost.
    """

    def __init__(self, cost: Callable[[float], float], *, low: float, high: float):
        self.costs: dict[float, float] = {}
        self._cost = cost
        self._known: dict[float, float] = {}  # costs by stretched position
        ends = math.asinh(low), math.asinh(high)
        for stretched in (*ends, 0.0):
            self._probe(stretched)
        self.low, self.high = (math.sinh(stretched) for stretched in ends)

    @property
    def least(self) -> float:
        """The least cost that can be had."""
        return self.costs[self.low]

    @property
    def most(self) -> float:
        """The highest cost that can be had."""
        return self.costs[self.high]

    def find(self, target: float) -> float:
        """The measured position whose cost is nearest to `target`, found anew where none is near.

        Args:
            target: from `least` to `most`.

        Returns:
            A position whose cost is within `TOLERANCE` of the target, unless a step is wider.
        """

        def excess(stretched: float) -> float:
            difference = self._probe(stretched) - target
            return 0.0 if abs(difference) <= TOLERANCE * target else difference

        if not any(excess(stretched) == 0.0 for stretched in self._known):
            known = sorted(self._known)
            below = max(p for p in known if excess(p) < 0.0)
            above = min(p for p in known if p > below and excess(p) > 0.0)
            brentq(excess, below, above, xtol=_RESOLUTION)
        return min(self.costs, key=lambda position: abs(self.costs[position] - target))

    def _probe(self, stretched: float) -> float:
        if stretched not in self._known:
            position = math.sinh(stretched)
            self._known[stretched] = self.costs[position] = self._cost(position)
        return self._known[stretched]
