"""Functions against each other: taking turns in one process, read as paired ratios.

The speed of a shared machine drifts, so an absolute time says little. Within a turn the drift is
small: the ratio to the baseline is taken there, and its median over the turns is the result.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np


class Timing(NamedTuple):
    """Seconds of one contender, one value per turn."""

    wall: list[float]
    cpu: list[float]

    def median(self) -> float:
        """Middle wall time, in seconds."""
        return statistics.median(self.wall)


class Ratio(NamedTuple):
    """Median and quartiles of paired ratios."""

    median: float
    low: float
    high: float


def race(
    contenders: Mapping[str, Callable[[], Any]], *, turns: int, warm_up: int = 2, seed: int = 0
) -> dict[str, Timing]:
    """Time all contenders, in a new random order each turn, so that none always follows the same.

    Args:
        contenders: functions whose result is waited for.
        turns: measured rounds.
        warm_up: rounds before that.
        seed: of the order.
    """
    names = list(contenders)
    timings = {name: Timing([], []) for name in names}
    rng = np.random.default_rng(seed)
    for turn in range(warm_up + turns):
        for name in rng.permutation(names).tolist():
            cpu, wall = time.process_time(), time.perf_counter()
            jax.block_until_ready(contenders[name]())
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn >= warm_up:
                timings[name].wall.append(wall)
                timings[name].cpu.append(cpu)
    return timings


def speedup(baseline: Timing, contender: Timing) -> Ratio:
    """How many times faster than the baseline: paired ratios of wall times."""
    ratios = np.asarray(baseline.wall) / np.asarray(contender.wall)
    return Ratio(*(float(np.quantile(ratios, q)) for q in (0.5, 0.25, 0.75)))
