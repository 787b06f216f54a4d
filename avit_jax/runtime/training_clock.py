"""How long a training takes and how fast its steps are, over all the processes that work on it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import jax

MAX_IN_FLIGHT = 2  # steps that were started and are not done
POLL = 0.001  # seconds between two looks at whether the device still computes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effort:
    """What a training has taken up to a checkpoint, which keeps it.

    Attributes:
        seconds: wall time: start-up, compilation, evaluations and saving included.
        timed_images: images in the steps that were timed, which are all but each process's first.
        timed_seconds: wall time of those steps and of waiting for their data.
        evaluating: seconds that evaluations have taken.
        saving: seconds in which checkpoints kept steps waiting.
        waiting: seconds in which the device had nothing to do because a batch was missing.
        compiling: seconds of first steps, which are compiled, and of compiling others.
        lost: seconds of steps that were to be done again, after a kill or a step not finite.
    """

    seconds: float = 0.0
    timed_images: int = 0
    timed_seconds: float = 0.0
    evaluating: float = 0.0
    saving: float = 0.0
    waiting: float = 0.0
    compiling: float = 0.0
    lost: float = 0.0

    @property
    def images_per_second(self) -> float | None:
        """Training speed; `None` if nothing was timed."""
        return self.timed_images / self.timed_seconds if self.timed_images else None


class TrainingClock:
    """Times one process's part of a training, by the steps that the device has really done.

    Args:
        clock: returns seconds; they count from now on. One that is put back stands still.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = forward_only(clock)
        self.restart()

    def restart(self) -> None:
        """Forget all until now: what went by since was lost, or is kept elsewhere."""
        self._began = self._clock()
        self._timed_since: float | None = None
        self._images, self._seconds, self._waiting = 0, 0.0, 0.0
        self._is_paused = False
        self._paused_for: collections.Counter[str] = collections.Counter()
        self._in_flight: collections.deque[tuple[jax.Array, int]] = collections.deque()

    @property
    def has_timed(self) -> bool:
        """Whether a step was made since the start; the first one is compiled."""
        return self._timed_since is not None

    def follow(self, result: jax.Array, *, images: int) -> None:
        """Take note of a step that was started, and wait if too many are unfinished.

        Args:
            result: anything that the step computes; it is ready when the step is done.
            images: number of images in its batch.
        """
        self._in_flight.append((result, images))
        if self._timed_since is None:  # the first step compiles, so it is not timed
            self._wait(left=0)
            self._timed_since = self._clock()
        else:
            # Enough to keep the device busy, few enough to stop soon after SIGTERM.
            self._wait(left=MAX_IN_FLIGHT)

    def wait_for(self, arrives: Callable[[float], bool]) -> None:
        """Wait for a batch; time in which steps still run on the device is not spent on it.

        Args:
            arrives: waits so many seconds for the batch, and says whether it is there.
        """
        idle_since, timeout = None, 0.0
        while not arrives(timeout):
            if idle_since is None and all(result.is_ready() for result, _ in self._in_flight):
                idle_since = self._clock()
            timeout = POLL
        if idle_since is not None:
            self._waiting += self._clock() - idle_since

    @contextlib.contextmanager
    def paused(self, purpose: str = "") -> Iterator[None]:
        """Wait for the unfinished steps; time spent inside of this context is not that of steps.

        It is added up in `Effort.evaluating`, `saving` or `compiling` where that is the purpose.
        """
        if self._is_paused:  # already, for another purpose
            yield
            return
        self._wait(left=0)
        self._is_paused = True
        was_timing, self._seconds, self._timed_since = self._timed_since, self._timed(), None
        began = self._clock()
        try:
            yield
        finally:
            self._is_paused = False
        ended = self._clock()
        self._paused_for[purpose] += ended - began
        if was_timing is not None:
            self._timed_since = ended

    def effort(self, before: Effort = Effort()) -> Effort:
        """What the run has taken so far: `before`, up to this process, and this process's part."""
        return Effort(
            seconds=before.seconds + self._clock() - self._began,
            timed_images=before.timed_images + self._images,
            timed_seconds=before.timed_seconds + self._timed(),
            evaluating=before.evaluating + self._paused_for["evaluating"],
            saving=before.saving + self._paused_for["saving"],
            waiting=before.waiting + self._waiting,
            compiling=before.compiling + self._paused_for["compiling"],
            lost=before.lost,
        )

    def images_per_second(self) -> float | None:
        """Training speed in this process so far; `None` before the first timed step is done."""
        return self.effort().images_per_second

    def _wait(self, *, left: int) -> None:
        while self._in_flight and (len(self._in_flight) > left or self._in_flight[0][0].is_ready()):
            result, images = self._in_flight.popleft()
            jax.block_until_ready(result)
            self._images += images if self._timed_since is not None else 0

    def _timed(self) -> float:
        since = self._timed_since
        return self._seconds + (0.0 if since is None else self._clock() - since)


def forward_only(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that stands still while the one it reads is put back."""
    last, behind = clock(), 0.0

    def read() -> float:
        nonlocal last, behind
        now = clock()
        behind += max(0.0, last - now)
        last = now
        return now + behind

    return read
