"""When a training logs, evaluates, saves and ends, in steps, which a config says in epochs."""

from __future__ import annotations

import dataclasses
from typing import Self

from avit_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timetable:
    """Numbers of steps: of the whole training, and between two log lines, evaluations and saves."""

    total_steps: int
    log_every: int
    evaluate_every: int
    save_every: int

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        """That of an experiment.

        Raises:
            UserError: a batch does not divide among the devices, or there are no training data.
        """
        experiment.refuse_uneven_train_batch()
        experiment.refuse_uneven_eval_batch()
        settings = experiment.settings
        return cls(
            total_steps=experiment.total_steps,
            log_every=settings.log.every,
            evaluate_every=experiment.steps(settings.eval.every),
            save_every=experiment.steps(settings.checkpoint.every),
        )

    def logs_at(self, step: int) -> bool:
        """Whether a log line ends with `step`, counted from 1."""
        return self._is_due(step, self.log_every)

    def evaluates_at(self, step: int) -> bool:
        """Whether the state behind `step` is evaluated."""
        return self._is_due(step, self.evaluate_every)

    def saves_at(self, step: int) -> bool:
        """Whether the state behind `step` is saved; it is before every evaluation, too."""
        return self._is_due(step, self.save_every) or self.evaluates_at(step)

    def _is_due(self, step: int, every: int) -> bool:
        return step == self.total_steps or step % every == 0
