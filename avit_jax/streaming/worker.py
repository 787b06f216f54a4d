"""The thread that runs the programs of one device: the deepest segment that has a whole batch.

A segment runs when its queue holds a batch, when an image has waited there for long enough, or when
nothing more will come. The deepest such segment comes first, so that queues are emptied before more
is brought; with room for three batches behind every segment there is always one that can run. Two
programs are in flight at most: the device never waits for the flags of the one before.
"""

from __future__ import annotations

import collections
import math
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from avit_jax.errors import NOT_FINITE
from avit_jax.streaming.answer import Answer, Job
from avit_jax.streaming.inbox import Inbox
from avit_jax.streaming.programs import Flags, Programs

_IN_FLIGHT = 2


class _Waiting(NamedTuple):
    """An image in a queue: its place, and when it came there."""

    job: Job
    place: int
    since: float


class _Begun(NamedTuple):
    """A program that runs: of which segment, on which images, and where it writes them."""

    segment: int
    jobs: list[Job]
    room: list[int]
    flags: Flags


class Worker(threading.Thread):
    """Takes images out of an inbox until that is closed and empty.

    Args:
        inbox: shared by the workers of all devices.
        programs: of this device.
        max_wait: seconds that an image waits in one queue for others, or `None`: for ever.
        clock: returns seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        programs: Programs,
        *,
        max_wait: float | None,
        clock: Callable[[], float],
    ):
        super().__init__(name="stream", daemon=True)
        self._inbox, self._programs, self._clock = inbox, programs, clock
        self._max_wait = math.inf if max_wait is None else max_wait
        behind = range(len(programs) - 1)
        self._queues = [collections.deque[_Waiting]() for _ in behind]
        self._free = [list(range(programs.places)) for _ in behind]
        self._begun: collections.deque[_Begun] = collections.deque()
        self._held: set[Job] = set()  # taken and not answered

    def run(self) -> None:
        """Whatever goes wrong here is the error of every image that has no answer yet."""
        try:
            while self._step():
                pass
        except BaseException as error:  # a thread has nobody else to tell
            self._inbox.fail(error)
            for job in self._held:
                job.future.set_exception(error)

    def _step(self) -> bool:
        """Begin a program, or read the flags of one, or wait; whether there is more to do."""
        inbox = self._inbox
        with inbox.changed:
            if inbox.failure is not None:
                raise inbox.failure
            segment = self._ready() if len(self._begun) < _IN_FLIGHT else None
            if segment is None and not self._begun:
                if inbox.is_closed and not len(inbox) and not any(self._queues):
                    return False
                inbox.changed.wait(self._until_due())
                return True
            most = self._programs.batch_size
            jobs = inbox.take(most) if segment == 0 else []
            self._held.update(jobs)
        if segment is None:
            self._finish(self._begun.popleft())
        elif segment == 0:
            self._begin(0, jobs, [job.image for job in jobs])
        else:
            queue = self._queues[segment - 1]
            taken = [queue.popleft() for _ in range(min(most, len(queue)))]
            places = [waiting.place for waiting in taken]
            self._begin(segment, [waiting.job for waiting in taken], places)
            # Programs run in order: this one has read them before a later one writes there.
            self._free[segment - 1] += places
        return True

    def _ready(self) -> int | None:
        """The deepest segment that can and should run now; under `inbox.changed`."""
        now, batch = self._clock(), self._programs.batch_size
        found, is_last_chance = None, self._inbox.is_ending
        for segment, (count, oldest) in enumerate(self._lines()):
            full = count >= batch or (segment == 0 and self._inbox.is_full)
            wanted = full or is_last_chance or now - oldest >= self._max_wait
            if count and wanted and self._has_room(segment, min(count, batch)):
                found = segment
            # What is in flight may bring more.
            running = any(begun.segment == segment for begun in self._begun)
            is_last_chance = is_last_chance and not count and not running
        return found

    def _lines(self) -> list[tuple[int, float]]:
        """How many images wait for each segment, and since when the first of them does."""
        first = (len(self._inbox), self._inbox.oldest if len(self._inbox) else math.inf)
        rest = [(len(queue), queue[0].since if queue else math.inf) for queue in self._queues]
        return [first, *rest]

    def _has_room(self, segment: int, images: int) -> bool:
        return segment == len(self._queues) or len(self._free[segment]) >= images

    def _until_due(self) -> float | None:
        """Seconds until an image has waited for long enough, or `None`."""
        soonest = min(oldest for _, oldest in self._lines()) + self._max_wait
        return None if math.isinf(soonest) else max(0.0, soonest - self._clock())

    def _begin(self, segment: int, jobs: list[Job], taken: Sequence) -> None:
        if not jobs:  # all have been cancelled
            return
        room: list[int] = []
        if segment < len(self._queues):
            free = self._free[segment]
            room = [free.pop() for _ in jobs]
        flags = self._programs.begin(segment, taken, len(jobs), room)
        self._begun.append(_Begun(segment, jobs, room, flags))

    def _finish(self, begun: _Begun) -> None:
        """Hand out the answers of images that leave; the others wait for the next segment."""
        values, leaves = jax.device_get(begun.flags)
        now = self._clock()
        for row, job in enumerate(begun.jobs):
            is_last = begun.segment == len(self._queues)
            if not is_last and not leaves[row]:
                waiting = _Waiting(job, begun.room[row], now)
                self._queues[begun.segment].append(waiting)
                continue
            if not is_last:
                self._free[begun.segment].append(begun.room[row])
            self._held.discard(job)
            own = {name: array[row] for name, array in values.items()}
            finite = all(np.isfinite(value).all() for value in own.values())
            job.future.set_result(
                Answer(
                    values=own,
                    segment=begun.segment,
                    seconds=now - job.due,
                    error=None if finite else NOT_FINITE,
                )
            )
