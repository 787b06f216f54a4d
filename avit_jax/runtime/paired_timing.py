"""Functions compared by their speed: they take turns, and ratios are taken within each turn.

The speed of a shared machine drifts, so an absolute time says little. Within one turn the drift is
small: the ratio to the baseline is taken there, and the median of the ratios is the result.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

WARM_UP = 2  # calls of each function that are not measured


class Timing(NamedTuple):
    """Times of one function in seconds, one value per turn.

    Attributes:
        wall: elapsed time.
        cpu: user and system time, added up over all threads of the process.
    """

    wall: list[float]
    cpu: list[float]

    def median(self) -> float:
        """Median of the elapsed times, in seconds."""
        return statistics.median(self.wall)


class Ratio(NamedTuple):
    """Median, lower and upper quartile of the ratios of all turns."""

    median: float
    low: float
    high: float


class SelfTimed(NamedTuple):
    """What a function returns that does its work in another process and has timed it there.

    Attributes:
        wall: elapsed time, in seconds.
        cpu: time of all cores, in seconds.
    """

    wall: float
    cpu: float


def race(contenders: Mapping[str, Callable[[], Any]], *, turns: int) -> dict[str, Timing]:
    """Time all contenders, in a new random order each turn, so that none always follows the same.

    Args:
        contenders: functions by name; a call counts as done when its result is ready;
            what is `SelfTimed` counts as it says.
        turns: calls of each function that are measured, behind `WARM_UP` that are not.
    """
    names = list(contenders)
    timings = {name: Timing([], []) for name in names}
    rng = np.random.default_rng(0)
    for turn in range(WARM_UP + turns):
        for name in rng.permutation(names).tolist():
            cpu, wall = time.process_time(), time.perf_counter()
            result = jax.block_until_ready(contenders[name]())
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if isinstance(result, SelfTimed):
                wall, cpu = result.wall, result.cpu
            if turn >= WARM_UP:
                timings[name].wall.append(wall)
                timings[name].cpu.append(cpu)
    return timings


def speedup(baseline: Timing, contender: Timing) -> Ratio:
    """How many times faster the contender is than the baseline: ratios of elapsed times."""
    ratios = np.asarray(baseline.wall) / np.asarray(contender.wall)
    return Ratio(*(float(np.quantile(ratios, q)) for q in (0.5, 0.25, 0.75)))
