"""Training, from config to summary: read it top to bottom.

The loop never waits for the device: the numbers of a log line are fetched one step after it. The
order inside the loop matters and is: step, log, evaluate, save, and only then the next batch.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax import convert, report, step
from avit_jax.checkpoint import Checkpoints
from avit_jax.errors import Preempted, UserError
from avit_jax.evaluate import evaluate, make_eval_step
from avit_jax.experiment import Experiment
from avit_jax.progress import Progress
from avit_jax.restore import evaluated_weights, restore_or_init
from avit_jax.sharding import replicated, shard_batch
from avit_jax.writer import MetricsWriter, write_json_atomic, write_text_atomic

logger = logging.getLogger(__name__)

# Settings that may differ between two parts of one run: they change no number.
CHANGEABLE = (
    "data.dir",
    "data.workers",
    "checkpoint.keep",
    "log.tensorboard",
    "dense_twin",
    "inference",
)
MAX_IN_FLIGHT = 2


def train(
    config: ConfigDict, workdir: Path, *, stop: Callable[[int], bool] = lambda step: False
) -> dict[str, Any]:
    """Train in `workdir`, or go on where an earlier call was interrupted; return the summary.

    Args:
        config: of the experiment.
        workdir: where everything is written.
        stop: asked after every step whether the machine is about to be taken away.

    Raises:
        UserError: a contradictory config, unreadable data, another config in the same workdir, or a
            loss that is not finite.
        Preempted: `stop` said so; the state is saved.
    """
    began = time.perf_counter()
    experiment = Experiment(config, workdir)
    refuse_other_run(config, workdir)
    report.print_model(experiment)

    run = Run(experiment)
    try:
        claim_workdir(config, workdir)
        while run.step < experiment.total_steps:
            try:
                with contextlib.closing(experiment.train_batches(run.step)) as batches:
                    run.through(batches, stop)
            except step.NonFinite as problem:
                run.roll_back(problem)
    finally:
        run.close()
    return report.finish(
        experiment,
        evaluated_weights(config, run.state),
        run.results,
        step=run.step,
        seconds=time.perf_counter() - began,
        train_rate=run.train_rate,
    )


def refuse_other_run(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where `workdir` belongs to converted weights or to another config."""
    convert.refuse_to_train_in(workdir)
    file = workdir / "config.json"
    if file.exists():
        saved = configs.to_json(configs.read(file))
        changed = configs.differences(config, saved, ignored=CHANGEABLE)
        if changed:
            raise UserError(
                f"{workdir} was started with another config ({'; '.join(changed)}): "
                "write another --workdir, or the same settings."
            )


def claim_workdir(config: ConfigDict, workdir: Path) -> None:
    """Write the config there, once all that it names was found: a mistyped path claims nothing."""
    if jax.process_index() == 0:
        write_text_atomic(workdir / "config.json", configs.to_json(config))


class Run:
    """The loop and what it has in hand: state, step, writers, and what waits to be logged."""

    def __init__(self, experiment: Experiment):
        config, optimization = experiment.config, experiment.optimization
        self.experiment, self.config = experiment, config
        self.checkpoints = Checkpoints(
            experiment.workdir / "checkpoints", keep=config.checkpoint.keep
        )
        self.skipped_file = experiment.workdir / "skipped_steps.json"
        self.skipped = (
            frozenset(json.loads(self.skipped_file.read_text()))
            if self.skipped_file.exists()
            else frozenset()
        )
        abstract = optimization.abstract_state(experiment.mesh)
        placed = (jax.tree.map(lambda leaf: leaf.sharding, abstract), replicated(experiment.mesh))
        self.train_step = jax.jit(
            step.make_train_step(
                experiment.model,
                optimization.optimizer,
                optimization.schedule,
                optimization.recipe,
                experiment.mesh,
            ),
            donate_argnums=0,
            out_shardings=placed,
        )
        self.skip_step = jax.jit(
            step.make_skip_step(optimization.recipe), donate_argnums=0, out_shardings=placed
        )
        self.eval_step = make_eval_step(experiment.model, experiment.mesh)
        self._start()

    def _start(self) -> None:
        """From the newest checkpoint or from the beginning."""
        self.state = restore_or_init(self.experiment, self.checkpoints)
        self.step = int(self.state.step)
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.results: dict[str, Any] | None = None
        self.in_flight: collections.deque[jax.Array] = collections.deque()
        self.writer = MetricsWriter(
            self.experiment.workdir,
            restored_step=self.step,
            tensorboard=self.config.log.tensorboard,
        )
        self.progress = Progress(
            self.experiment.total_steps,
            start=self.step,
            batch_size=self.config.train.batch_size,
        )

    @property
    def train_rate(self) -> float | None:
        """Training images per second, without compilation; `None` if too few steps were run."""
        return self.progress.images_per_second

    def through(
        self, batches: Iterator[dict[str, np.ndarray]], stop: Callable[[int], bool]
    ) -> None:
        """Run steps until the training is done; raises `NonFinite` or `Preempted`."""
        config, total = self.config, self.experiment.total_steps
        evaluate_every = self.experiment.steps(config.eval.every)
        save_every = self.experiment.steps(config.checkpoint.every)
        while self.step < total:
            averages = self.advance(next(batches))
            self.flush_log()  # the line of an earlier step: its numbers have arrived by now
            if due(self.step, config.log.every, total):
                jax.tree.map(lambda leaf: leaf.copy_to_host_async(), averages)
                self.pending = (self.step, averages)
            evaluates = due(self.step, evaluate_every, total)
            preempted = stop(self.step)
            if evaluates or preempted or due(self.step, save_every, total):
                self.flush_log()
                check_finite(averages)
                if evaluates:
                    self.evaluate()
                self.save()
            if preempted and self.step < total:
                raise Preempted(f"stopped after step {self.step}, which is saved")

    def advance(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """One step; returns the averages since the last log line, still on the device."""
        if self.step in self.skipped:
            self.state, averages = self.skip_step(self.state)
        else:
            rows = {name: batch[name] for name in ("image", "label")}
            rows["substituted"] = batch["index"] != batch["requested"]
            self.state, averages = self.train_step(
                self.state, shard_batch(rows, self.experiment.mesh)
            )
        self.step += 1
        # Enough steps in flight to keep the device busy, few enough to hear SIGTERM in time.
        self.in_flight.append(averages["loss"])
        if len(self.in_flight) > MAX_IN_FLIGHT:
            jax.block_until_ready(self.in_flight.popleft())
        return averages

    def flush_log(self) -> None:
        """Write the log line that waits, if any, unless its numbers are not sound."""
        if self.pending is None:
            return
        (at, averages), self.pending = self.pending, None
        check_finite(averages)
        values = {name: float(value) for name, value in averages.items() if name != "nonfinite"}
        self.writer.write(at, "train", values)
        self.progress.update(at, report.shown(values))

    def evaluate(self) -> None:
        """Evaluate and log."""
        results = evaluate(
            self.eval_step,
            evaluated_weights(self.config, self.state),
            self.experiment.eval_batches(),
            self.experiment.mesh,
            model=self.experiment.model,
        )
        self.results = results
        speed = results["images_per_second"]
        logged = {name: results[name] for name in results if name != "images_per_second"}
        self.writer.write(self.step, "eval", logged)
        self.progress.write(report.eval_line(self.step, results, speed))

    def save(self) -> None:
        """Save the state; what has been logged so far is on disk before."""
        self.writer.flush()
        self.checkpoints.save(self.step, self.state)

    def roll_back(self, problem: step.NonFinite) -> None:
        """Go back to the newest checkpoint and leave out the step that failed, if so configured."""
        if self.config.train.on_nonfinite == "stop":
            raise UserError(
                f"{problem}; the run stopped and its last checkpoint is sound: lower "
                "config.optim.learning_rate, set config.optim.clip_norm, or write "
                "--config.train.on_nonfinite rollback to leave such steps out."
            )
        if len(self.skipped) >= self.config.train.max_rollbacks:
            raise UserError(
                f"{problem}, after {len(self.skipped)} rollbacks: the training diverges, so lower "
                "config.optim.learning_rate or raise config.train.max_rollbacks."
            )
        self.skipped |= {problem.step}
        write_json_atomic(self.skipped_file, sorted(self.skipped))
        self.close()
        self._start()
        logger.warning("%s: back to step %d, that step is left out", problem, self.step)

    def close(self) -> None:
        """Finish what runs in the background."""
        self.checkpoints.wait()
        self.progress.close()
        self.writer.close()


def check_finite(averages: dict[str, jax.Array]) -> None:
    """Raise `NonFinite` if any step so far had a loss, gradient or update not finite."""
    first = int(averages["nonfinite"])
    if first != step.NEVER:
        raise step.NonFinite(first)


def due(at: int, every: int, total: int) -> bool:
    """Whether something done every so many steps, and at the end, is due at step `at`."""
    return at == total or at % every == 0
