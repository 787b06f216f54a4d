"""What is said and heard while no image comes, as where a disk or a store hangs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from avit_jax.errors import Preempted

logger = logging.getLogger(__name__)

SAY_SECONDS = 60.0  # after which the first word is said; the next ones after twice as long
HEAR_SECONDS = 1.0  # after which whoever asks the run to stop need not wait for the step


class Patience:
    """Waits for one batch: to be asked again and again whether it is there.

    Args:
        arrives: waits so many seconds for the batch, and says whether it is there.
        stop: whether the run was asked to stop.
        clock: returns seconds.
    """

    def __init__(
        self,
        arrives: Callable[[float], bool],
        stop: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arrives, self._stop, self._clock = arrives, stop, clock
        self._since, self._next_word = clock(), SAY_SECONDS

    def __call__(self, seconds: float) -> bool:
        """Whether the batch is there.

        Raises:
            Preempted: it is not, and the run was asked to stop.
        """
        if self._arrives(seconds):
            return True
        waited = self._clock() - self._since
        if waited > self._next_word:
            logger.warning(
                "no image has come for %.0f s: a disk or store that hangs is waited for", waited
            )
            self._next_word = 2 * waited
        if waited > HEAR_SECONDS and self._stop():
            raise Preempted("stopped while no image came")
        return False
