"""`config.profile`: a window of steps traced for XProf and TensorBoard, into `WORKDIR/profile`."""

from __future__ import annotations

import logging
from pathlib import Path

import jax

from avit_jax.config.defaults import Profile
from avit_jax.errors import UserError
from avit_jax.runtime.training_clock import TrainingClock

logger = logging.getLogger(__name__)

FOLDER = "profile"


class Trace:
    """The window, open or not.

    Args:
        settings: which steps.
        workdir: of the run.
        total_steps: of the training.

    Raises:
        UserError: the window does not lie within the training.
    """

    def __init__(self, settings: Profile, workdir: Path, total_steps: int) -> None:
        self._steps = range(settings.start, settings.start + settings.steps)
        self._folder, self._is_open = workdir / FOLDER, False
        if self._steps and self._steps[-1] >= total_steps:
            raise UserError(
                f"config.profile traces steps {settings.start + 1} to {self._steps.stop}, but the "
                f"training has {total_steps}: write a smaller --config.profile.start or steps."
            )

    def reach(self, step: int, clock: TrainingClock) -> None:
        """Open or close the window where that is due in front of `step`, counted from 0."""
        if (step in self._steps) == self._is_open:
            return
        with clock.paused():  # all steps before it are done
            if self._is_open:
                self.close()
            else:
                jax.profiler.start_trace(self._folder)
                self._is_open = True

    def close(self) -> None:
        """Write the trace, if one was begun; all of its steps are to be done."""
        if self._is_open:
            self._is_open = False
            jax.profiler.stop_trace()
            logger.info("a trace for XProf and TensorBoard is in %s", self._folder)
