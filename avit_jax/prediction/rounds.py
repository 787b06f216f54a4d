"""The loop of `--mode predict`: images in, lines out, and processes that compare notes on the way.

Processes need not be equally fast. They work in rounds of a few seconds, however many batches that
is for each, and all end with the last one: none waits longer than one batch, none leaves the
others, and all stop in the same round when the machines are to be taken away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Generator

import jax
import numpy as np

from avit_jax.data.example import Source
from avit_jax.errors import Preempted
from avit_jax.prediction.answer_lines import Totals, make_lines
from avit_jax.prediction.answers import Answered
from avit_jax.runtime.json_lines import JsonLines
from avit_jax.runtime.processes import gather
from avit_jax.runtime.progress import Progress

ROUND_SECONDS = 5.0  # of several processes; one alone makes a round of every batch
BAR_SECONDS, LINE_SECONDS = 0.5, 20.0  # between two signs of progress, on a terminal and in a log


def write_rounds(
    results: Generator[Answered, None, None],
    lines: JsonLines,
    totals: Totals,
    *,
    source: Source,
    part: range,
    batch_size: int,
    stop: Callable[[int], bool],
) -> tuple[Totals, float | None]:
    """Append the lines of all results; every process calls it.

    Args:
        results: of this process, from the batch of its first missing line on.
        lines: of this process.
        totals: over the lines that are there already.
        source: all images.
        part: indices of this process's images.
        batch_size: images of a batch of one process.
        stop: see `predict_run`.

    Returns:
        The sums over all lines of all processes, and images/s of them together without the first
        round, or `None` where there was no other.

    Raises:
        Preempted: `stop` said so.
    """
    total, everyone = len(source), _together(totals)
    display = _Display(total, everyone, batch_size=batch_size)
    with contextlib.closing(display), contextlib.closing(results):
        for number in itertools.count(1):
            if everyone.lines == total:
                return everyone, display.images_per_second(everyone)
            totals = _round(results, lines, totals, source=source, part=part)
            everyone = _together(totals)
            display.show(everyone)
            if stop(number) and everyone.lines < total:
                raise Preempted(
                    f"stopped after {everyone.lines:,} of {total:,} images, whose lines are safe"
                )


def _round(
    results: Generator[Answered, None, None],
    lines: JsonLines,
    totals: Totals,
    *,
    source: Source,
    part: range,
) -> Totals:
    deadline = time.monotonic() + (ROUND_SECONDS if jax.process_count() > 1 else 0.0)
    for loaded, answer in results:
        done = part.start + lines.count - loaded.start  # rows that were written before a restart
        new = make_lines(source, loaded, answer)[done:]
        lines.append(new)
        for line in new:
            totals = totals.add(line)
        if time.monotonic() >= deadline:
            break
    return totals


def _together(totals: Totals) -> Totals:
    """The sums over all processes."""
    values = dataclasses.asdict(totals)
    summed = {}
    # Counts stay whole numbers: float32, the widest that processes exchange, ends at 2^24.
    for kind, exchanged in ((int, np.int32), (float, np.float32)):
        names = [name for name, value in values.items() if isinstance(value, kind)]
        gathered = gather(np.asarray([values[name] for name in names], exchanged))
        wide = np.int64 if kind is int else np.float64
        summed |= zip(names, gathered.sum(0, dtype=wide).tolist(), strict=True)
    return Totals(**summed)


class _Display:
    """Progress of all processes, shown by the first one, and their rate."""

    def __init__(self, total: int, before: Totals, *, batch_size: int) -> None:
        self._total, self._batch_size = total, batch_size
        self._first: tuple[int, float] | None = None  # lines and time after the first round
        self._shown = -math.inf
        self._seconds = BAR_SECONDS if sys.stderr.isatty() else LINE_SECONDS
        self._progress = None
        if jax.process_index() == 0:
            self._progress = Progress(
                self._batches(total),
                start=self._batches(before.lines),
                batch_size=batch_size,
                title="predict",
            )

    def show(self, totals: Totals) -> None:
        now = time.monotonic()
        self._first = self._first or (totals.lines, now)
        due = now - self._shown >= self._seconds or totals.lines == self._total
        if self._progress is not None and due:
            self._shown = now
            values = {"bad": totals.bad, "gmacs": totals.mean(totals.gmacs)}
            self._progress.update(self._batches(totals.lines), values)

    def images_per_second(self, totals: Totals) -> float | None:
        if self._first is None or totals.lines == self._first[0]:
            return None
        return (totals.lines - self._first[0]) / (time.monotonic() - self._first[1])

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()

    def _batches(self, images: int) -> int:
        return math.ceil(images / self._batch_size)
