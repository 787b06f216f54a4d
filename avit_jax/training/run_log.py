"""What a training says on its way: to a person, to `metrics.jsonl`, and when, to `timings.jsonl`.

Metrics are of the run, and a resumed run has those of an undisturbed one to the bit. Times are of
the machine and the day, so they have a file of their own, a diary: one line for each line of
metrics, under the same step and kind, of all processes that worked on the run. Steps that were done
again after a kill are there twice; their `seconds` go on, and what was lost is added up.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from typing import Any

import jax

from avit_jax.evaluation import report
from avit_jax.experiment import Experiment
from avit_jax.runtime.growing_file import LogMark
from avit_jax.runtime.json_lines import JsonLines
from avit_jax.runtime.metrics_log import MetricsWriter
from avit_jax.runtime.progress import Progress
from avit_jax.runtime.training_clock import Effort
from avit_jax.training.starvation import Starvation

TIMINGS = "timings.jsonl"
PLACES = 2  # of seconds: a log is read by people


class RunLog:
    """The log of one process's part of a training.

    Args:
        experiment: that is trained.
        step: that this part starts from, 0 or that of a checkpoint.
        effort: says what the run has taken so far.
        images_per_second: the speed of this process, for the terminal.
        mark: what the checkpoint says of the log of metrics, see `mark`.
    """

    def __init__(
        self,
        experiment: Experiment,
        step: int,
        *,
        effort: Callable[[], Effort],
        images_per_second: Callable[[], float | None],
        mark: Mapping[str, Any] | None = None,
    ) -> None:
        settings, batch_size = experiment.settings, experiment.settings.train.batch_size
        self._steps_per_epoch = len(experiment.train_source) / batch_size
        self._effort, self._last = effort, effort()
        self._starvation = Starvation(settings.data)
        self._metrics = MetricsWriter(
            experiment.workdir,
            restored_step=step,
            tensorboard=settings.log.tensorboard,
            mark=LogMark.stored(mark),
        )
        self._timings = None
        if jax.process_index() == 0:
            self._timings = JsonLines(experiment.workdir / TIMINGS, identity=None)
        self._progress = Progress(
            experiment.total_steps,
            start=step,
            batch_size=batch_size,
            images_per_second=images_per_second,
        )

    def trained(self, step: int, values: dict[str, float]) -> None:
        """Averages over the steps since the last such line."""
        self._metrics.write(step, "train", values)
        self._time(step, "train")
        self._starvation.look(self._last)
        self._progress.update(step, report.shown(values))

    def evaluated(self, step: int, results: dict[str, Any]) -> dict[str, Any]:
        """Figures of an evaluation, whose speed is no metric; returns what was said of its time."""
        speed = results["images_per_second"]
        logged = {name: results[name] for name in results if name != "images_per_second"}
        self._metrics.write(step, "eval", logged)
        line = self._time(step, "eval")
        self._progress.write(report.eval_line(step, results, speed))
        return line

    def mark(self) -> dict[str, Any] | None:
        """How much of the log of metrics there is, for a checkpoint; `None` where none is kept."""
        mark = self._metrics.mark()
        return None if mark is None else dataclasses.asdict(mark)

    def flush(self) -> None:
        """Makes all lines survive a power cut; call it before a checkpoint is saved."""
        self._metrics.flush()
        if self._timings is not None:
            self._timings.sync()

    def close(self) -> None:
        """Flushes and closes the files and ends the line of the bar."""
        self._progress.close()
        self._metrics.close()
        if self._timings is not None:
            self._timings.close()

    def _time(self, step: int, kind: str) -> dict[str, Any]:
        now, before = self._effort(), self._last
        self._last = now
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        epoch = round(step / self._steps_per_epoch, 3)
        line = {"step": step, "kind": kind, "epoch": epoch, "time": at} | timing(before, now)
        if self._timings is not None:
            self._timings.append([line])
        return line


def timing(before: Effort, now: Effort) -> dict[str, float | None]:
    """What a line says of the time between two moments of a run.

    Args:
        before: what the run had taken at the line before, or at the start of this process.
        now: what it has taken at this line.

    Returns:
        `seconds` of the whole run, and of those that went by in evaluations, in saving, in waiting
        for a batch with nothing else to do, in compiling, and in steps that had to be done again
        (`evaluating_seconds`, `saving_seconds`, `waiting_seconds`, `compiling_seconds`,
        `lost_seconds`); `images_per_second` of the steps between the two moments, `None` where none
        was timed, as in an evaluation.
    """
    images = now.timed_images - before.timed_images
    elapsed = now.timed_seconds - before.timed_seconds
    return {
        "seconds": round(now.seconds, PLACES),
        "images_per_second": round(images / elapsed, PLACES) if images and elapsed else None,
        "evaluating_seconds": round(now.evaluating, PLACES),
        "saving_seconds": round(now.saving, PLACES),
        "waiting_seconds": round(now.waiting, PLACES),
        "compiling_seconds": round(now.compiling, PLACES),
        "lost_seconds": round(now.lost, PLACES),
    }
