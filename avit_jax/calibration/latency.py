"""Budgets in milliseconds: time is measured, with the compacted program that prediction runs.

Times are noisy and programs take seconds to compile, so time is not bisected. A few programs
between the least and the highest cost are raced, the cost for the wanted time is read off between
them, and the program at that cost is raced with the others; where it misses, it is one point more
to read from.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avit_jax.calibration.position_search import Probes
from avit_jax.errors import UserError
from avit_jax.execution.predictor import Predictor
from avit_jax.runtime.paired_timing import race

logger = logging.getLogger(__name__)

PROGRAMS = 4  # raced before the first guess
ROUNDS = 6  # guesses, at most
TURNS, MOST_TURNS = 9, 100
SECONDS = 10.0  # of a race, where that means more turns: short programs need more
UNSTEADY = 0.1  # of the wanted time
CLOSE = 0.03  # of the wanted time: measured medians repeat about as well


class Stopwatch:
    """Milliseconds per batch at positions of a dial.

    Args:
        probes: GMACs at positions.
        compiled: the compacted program at a position.
        batches: normalised images, each `[B, H, W, 3]`.
    """

    def __init__(
        self,
        probes: Probes,
        compiled: Callable[[float], Predictor],
        batches: Sequence[np.ndarray],
    ):
        self._probes, self._compiled, self._batches = probes, compiled, batches
        self._programs: dict[float, Callable[[], Any]] = {}
        self._ratios: dict[float, list[float]] = {}  # to the dearest program, by turn
        self._dearest: list[float] = []  # seconds of that one
        inner = np.linspace(probes.least, probes.most, PROGRAMS)[1:-1]
        for position in (probes.low, *map(probes.find, inner), probes.high):
            self._add(position)

    def meet(self, wanted: float, name: str) -> tuple[float, float]:
        """The dearest position tried that keeps to `wanted` milliseconds, and what it takes.

        Raises:
            UserError: it takes more even at the least cost, or less even at the highest, or times
                vary too much to say.
        """
        times = self.race()
        least, most = times[self._probes.low], times[self._probes.high]
        if not least <= wanted <= most:
            raise UserError(
                f"the budget {name} cannot be met: batches of {len(self._batches[0])} images take "
                f"{least:.4g} to {most:.4g} ms here, so write a time between, or another "
                "config.inference.batch_size."
            )
        for _ in range(ROUNDS):
            position = self._probes.find(self._cost_of(wanted, times))
            self._add(position)
            times = self.race()
            logger.info("%s: %.4g ms at position %.4g", name, times[position], position)
            if abs(times[position] - wanted) <= CLOSE * wanted:
                break
        allowed = [p for p, median in self._steady(times) if median <= (1 + CLOSE) * wanted]
        best = allowed[-1] if allowed else self._probes.low
        if times[best] < (1 - UNSTEADY) * wanted:
            raise UserError(
                f"no setting was found that takes {name}: of those tried, the dearest that keeps "
                f"to it takes {times[best]:.4g} ms, because times vary too much on this machine "
                "now; repeat it when nothing else runs."
            )
        return best, times[best]

    def race(self) -> dict[float, float]:
        """Let all programs so far take turns once more; milliseconds per batch from all turns.

        A shared machine drifts between two races by more than programs differ. So a program's time
        is its median ratio to the dearest program in the same turn, times that one's median.
        """
        programs = {str(position): program for position, program in self._programs.items()}
        once = sum(timing.median() for timing in race(programs, turns=1).values())
        turns = int(np.clip(SECONDS / once, TURNS, MOST_TURNS))
        timings = race(programs, turns=turns)
        dearest = timings[str(self._probes.high)].wall
        for position in self._programs:
            ratios = np.divide(timings[str(position)].wall, dearest)
            self._ratios.setdefault(position, []).extend(ratios.tolist())
        self._dearest += dearest
        scale = 1e3 / len(self._batches) * statistics.median(self._dearest)
        return {p: scale * statistics.median(ratios) for p, ratios in self._ratios.items()}

    def _cost_of(self, wanted: float, times: dict[float, float]) -> float:
        positions, medians = zip(*self._steady(times), strict=True)
        return float(np.interp(wanted, medians, [self._probes.costs[p] for p in positions]))

    def _steady(self, times: dict[float, float]) -> list[tuple[float, float]]:
        """Positions by rising cost, with medians that rise: a dearer program is never quicker."""
        positions = sorted(times, key=self._probes.costs.__getitem__)
        medians = np.maximum.accumulate([times[position] for position in positions])
        return list(zip(positions, medians.tolist(), strict=True))

    def _add(self, position: float) -> None:
        if position in self._programs:
            return
        program = self._compiled(position)
        arguments = [program.put(batch) for batch in self._batches]
        self._programs[position] = lambda: [program.run(*pair).logits for pair in arguments]
