"""Training, from config to summary: read it top to bottom.

The loop never waits for the device: the numbers of a log line are fetched one step after it. The
order inside the loop matters and is: step, log, save, evaluate, and only then the next batch. It
saves first so that an evaluation that fails or is interrupted costs nothing; the next start then
begins with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.checkpoints import description, run_identity
from avit_jax.checkpoints.run_identity import RunIdentity
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.workdir import refuse_other_run, write_config
from avit_jax.errors import Preempted, UserError
from avit_jax.evaluation import report
from avit_jax.evaluation.evaluate import evaluate, last_logged, make_eval_step
from avit_jax.experiment import Experiment
from avit_jax.models.functional import Params
from avit_jax.runtime import joining
from avit_jax.runtime.device_mesh import shard_batch
from avit_jax.runtime.locks import only_writer
from avit_jax.runtime.processes import interruptible
from avit_jax.runtime.training_clock import Effort, TrainingClock
from avit_jax.training import data_identity, restarts, step
from avit_jax.training.device_prefetch import DevicePrefetch
from avit_jax.training.optimization import Optimization
from avit_jax.training.patience import Patience
from avit_jax.training.run_log import TIMINGS, RunLog
from avit_jax.training.skipped_steps import SkippedSteps
from avit_jax.training.start import evaluated_weights, restore_or_init
from avit_jax.training.teacher import refuse_other_teacher, teacher_weights
from avit_jax.training.timetable import Timetable
from avit_jax.training.trace import Trace

logger = logging.getLogger(__name__)


def train(
    config: ConfigDict, workdir: Path, *, stop: Callable[[int], bool] = lambda step: False
) -> dict[str, Any]:
    """Train in `workdir`, or go on where an earlier call was interrupted; return the summary.

    Args:
        config: of the experiment.
        workdir: where everything is written.
        stop: asked after every step whether the machine is about to be taken away.

    Raises:
        UserError: a contradictory config, unreadable data, another config in the same workdir or
            another run that is writing there, or a loss that is not finite.
        Preempted: `stop` said so; the state is saved.
    """
    clock, experiment = TrainingClock(), Experiment(config, workdir)
    with only_writer(workdir, "train"):
        anew = refuse_other_run(config, workdir)
        saved = Checkpoints(workdir / "checkpoints").steps()
        if not saved:  # whose data may have been others
            description.forget(workdir)
        identity = run_identity.begin(workdir, saved)
        timetable = Timetable.of(experiment)
        diary = [] if anew else restarts.read(workdir / TIMINGS)
        skipped = SkippedSteps(workdir, anew=anew)
        report.print_model(experiment)
        with (
            contextlib.closing(
                Run(experiment, timetable, skipped, clock, identity=identity, diary=diary)
            ) as run,
            joining.all_end_together(),
        ):
            write_config(config, workdir)
            identity.write()
            experiment.describe(workdir)
            skipped.write()
            while not run.is_done():
                try:
                    decoded = experiment.train_batches(run.step)
                    prefetch = DevicePrefetch(decoded, run.on_devices)
                    with contextlib.closing(prefetch) as batches:
                        run.through(batches, stop)
                except step.NonFinite as problem:
                    run.roll_back(problem)
        weights, done = run.weights(), {"step": run.step, "effort": run.effort, "stop": stop}
        return report.finish(experiment, weights, run.results, **done)


class Run:
    """The loop and what it has in hand: state, step, writers, and what waits to be logged."""

    def __init__(
        self,
        experiment: Experiment,
        timetable: Timetable,
        skipped: SkippedSteps,
        clock: TrainingClock,
        *,
        identity: RunIdentity,
        diary: Sequence[Mapping[str, Any]],
    ):
        self.experiment, self.settings = experiment, experiment.settings
        self.timetable = timetable
        self.skipped, self.clock, self.diary = skipped, clock, diary
        self.compiling = functools.partial(clock.paused, "compiling")
        self.trace = Trace(self.settings.profile, experiment.workdir, timetable.total_steps)
        self.checkpoints = Checkpoints(
            experiment.workdir / "checkpoints", keep=self.settings.checkpoint.keep, run=identity
        )
        self.data = data_identity.identity(experiment)
        self.optimization = Optimization(self.settings, experiment.model, timetable.total_steps)
        self.skip_step = self.optimization.compiled_skip(experiment.mesh)
        self.teacher_params, self.teacher_origin = teacher_weights(
            self.settings.teacher, self.optimization.recipe.teacher, experiment.mesh
        )
        self.eval_step = make_eval_step(experiment.model, experiment.mesh)
        self.before: Effort | None = None  # what was done up to this process
        self._start()

    def _start(self) -> None:
        """From the newest checkpoint or from the beginning."""
        self.state = restore_or_init(self.experiment, self.optimization, self.checkpoints)
        self.step = int(self.state.step)
        stored = self.checkpoints.extra(self.step) if self.step else {}
        if self.step:
            refuse_other_teacher(stored.get("teacher"), self.teacher_origin)
            data_identity.refuse_other_classes(stored.get("data"), self.data)
            self.skipped.include(stored.get("skipped", ()))
        if self.before is None:
            kept = Effort(**stored.get("effort", {}))
            self.before = self.effort = restarts.resumed(kept, self.diary, step=self.step)
        mesh, teacher, sizes = self.experiment.mesh, self.teacher_params, stored.get("rows")
        self.stepping = self.optimization.stepping(
            mesh, teacher=teacher, stored=sizes, compiling=self.compiling
        )
        self.averages: dict[str, jax.Array] | None = None
        self.pending: tuple[int, dict[str, jax.Array]] | None = None
        self.results: dict[str, Any] | None = None
        self.log = RunLog(
            self.experiment,
            self.step,
            effort=lambda: self.clock.effort(self.before),
            images_per_second=self.clock.images_per_second,
            mark=stored.get("log"),
        )
        self.evaluated = last_logged(self.experiment.workdir / "metrics.jsonl")

    def is_done(self) -> bool:
        """Whether neither a step nor an evaluation is left."""
        return self.step >= self.timetable.total_steps and not self.evaluation_is_due()

    def evaluation_is_due(self) -> bool:
        """Whether the state in hand has to be evaluated, and was not."""
        return self.timetable.evaluates_at(self.step) and 0 < self.step != self.evaluated

    def on_devices(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """What a step needs of a batch, on the mesh; called in another thread."""
        rows = {name: batch[name] for name in ("image", "label")}
        rows["substituted"] = batch["index"] != batch["requested"]
        return shard_batch(rows, self.experiment.mesh)

    def through(
        self, batches: DevicePrefetch[dict[str, jax.Array]], stop: Callable[[int], bool]
    ) -> None:
        """Run steps until the training is done; raises `NonFinite`, `Preempted` or `UserError`."""
        total = self.timetable.total_steps
        if self.evaluation_is_due():  # an earlier process was interrupted in it
            self.evaluate(stop)
        while self.step < total:
            self.advance(self.next_of(batches, stop))
            self.flush_log()  # the line of an earlier step: its numbers have arrived by now
            if self.timetable.logs_at(self.step):
                self.settle()
                jax.tree.map(lambda leaf: leaf.copy_to_host_async(), self.averages)
                self.pending = (self.step, self.averages)
            preempted = stop(self.step)
            if preempted or self.timetable.saves_at(self.step):
                self.save()
            if preempted and self.step < total:
                raise Preempted(f"stopped after step {self.step}, which is saved")
            if self.evaluation_is_due():
                self.evaluate(stop)

    def next_of(
        self, batches: DevicePrefetch[dict[str, jax.Array]], stop: Callable[[int], bool]
    ) -> dict[str, jax.Array]:
        """The next batch; where none comes, saves and raises `UserError` or `Preempted`."""
        # Several processes cannot stop here: the others do not know that this one does.
        is_alone = jax.process_count() == 1
        try:
            self.clock.wait_for(Patience(batches.arrives, lambda: is_alone and stop(self.step)))
            return batches.take()
        except (UserError, Preempted):
            if self.averages is not None and is_alone:
                self.save()
            raise

    def advance(self, batch: dict[str, jax.Array]) -> None:
        """One step; leaves the averages since the last log line on the device."""
        number, is_skipped = self.step, self.step in self.skipped
        self.step += 1
        if is_skipped:
            self.settle()
            self.state, self.averages = self.skip_step(self.state)
            return
        self.trace.reach(number, self.clock)
        with contextlib.nullcontext() if self.clock.has_timed else self.compiling():
            self.state, self.averages = self.stepping.advance(self.state, number, batch)
        self.clock.follow(self.averages["loss"], images=self.settings.train.batch_size)

    def settle(self) -> None:
        """See that every step so far was made; until then, a state may lack the last one."""
        self.state, self.averages = self.stepping.settle(self.state, self.averages)

    def flush_log(self) -> None:
        """Write the log line that waits, if any, unless its numbers are not sound."""
        if self.pending is None:
            return
        (at, averages), self.pending = self.pending, None
        step.check_finite(averages)
        if not averages["count"]:  # all of its steps were left out
            return
        values = {name: float(averages[name]) for name in averages if name not in step.COUNTS}
        self.log.trained(at, values)

    def evaluate(self, stop: Callable[[int], bool]) -> None:
        """Evaluate and log; raises `Preempted` where `stop` said so."""
        said = f"stopped while step {self.step}, which is saved, was evaluated"
        batches = interruptible(self.experiment.eval_batches(), lambda: stop(self.step), said=said)
        with self.clock.paused("evaluating"):
            results = evaluate(
                self.eval_step,
                self.weights(),
                batches,
                self.experiment.mesh,
                model=self.experiment.model,
            )
        self.results, self.evaluated = results, self.step
        self.effort = restarts.evaluated(self.effort, self.log.evaluated(self.step, results))

    def weights(self) -> Params:
        """Those of the state in hand that are evaluated."""
        return evaluated_weights(self.state, weights=self.settings.eval.weights)

    def save(self) -> None:
        """Save the state if it is sound; what has been logged so far is on disk before."""
        with self.clock.paused("saving"):
            self.settle()
            self.flush_log()
            step.check_finite(self.averages)
            if self.timetable.evaluates_at(self.step):
                self.state = self.stepping.fit(self.state)
            self.log.flush()
            self.effort = self.clock.effort(self.before)
            extra = {"effort": dataclasses.asdict(self.effort), "rows": self.stepping.stored()}
            extra |= {"teacher": self.teacher_origin, "data": self.data}
            extra |= {"log": self.log.mark(), "skipped": self.skipped.steps()}
            self.checkpoints.save(self.step, self.state, extra=extra)

    def roll_back(self, problem: step.NonFinite) -> None:
        """Go back to the newest checkpoint and leave out the step that failed, if so configured."""
        self.checkpoints.wait()
        saved = max(self.checkpoints.steps(), default=None)
        self.skipped.add(problem, self.settings.train, saved=saved)
        reached = self.clock.effort(self.before).seconds
        self.before = self.effort = restarts.gone_on(self.effort, reached)
        self.clock.restart()
        with self.clock.paused():
            self.close()
            self._start()
        logger.warning("%s: back to step %d, that step is left out", problem, self.step)

    def close(self) -> None:
        """Finish what runs in the background."""
        self.trace.close()
        self.checkpoints.wait()
        self.log.close()
