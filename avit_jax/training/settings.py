"""How long a training lasts and what it does beside its steps, read once from a config."""

from __future__ import annotations

import dataclasses
from typing import Self

from avit_jax.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Everything in steps, not epochs.

    Attributes:
        total_steps: of the whole training.
        batch_size: images per step, over all devices and processes.
        log_every: steps of a log line.
        evaluate_every: steps between two evaluations.
        save_every: steps between two checkpoints.
        checkpoints_kept: number of the newest checkpoints that stay.
        tensorboard: whether the log is also written for TensorBoard.
        rolls_back: whether a step that is not finite is left out, instead of ending the run.
        max_rollbacks: steps that may be left out.
        evaluated_weights: "auto", "ema" or "raw", see `start.evaluated_weights`.
    """

    total_steps: int
    batch_size: int
    log_every: int
    evaluate_every: int
    save_every: int
    checkpoints_kept: int
    tensorboard: bool
    rolls_back: bool
    max_rollbacks: int
    evaluated_weights: str

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        """Those of a config.

        Raises:
            UserError: a batch does not divide among the devices, or there are no training data.
        """
        experiment.refuse_uneven_train_batch()
        experiment.refuse_uneven_eval_batch()
        config = experiment.config
        return cls(
            total_steps=experiment.total_steps,
            batch_size=config.train.batch_size,
            log_every=config.log.every,
            evaluate_every=experiment.steps(config.eval.every),
            save_every=experiment.steps(config.checkpoint.every),
            checkpoints_kept=config.checkpoint.keep,
            tensorboard=config.log.tensorboard,
            rolls_back=config.train.on_nonfinite == "rollback",
            max_rollbacks=config.train.max_rollbacks,
            evaluated_weights=config.eval.weights,
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
