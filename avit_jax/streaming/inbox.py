"""Images that wait in front of the first segment: few, and whoever brings more waits."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from avit_jax.errors import UserError
from avit_jax.streaming.answer import Job


class Inbox:
    """A bounded queue that several threads fill and the workers of all devices empty.

    Args:
        capacity: images that it holds.

    Attributes:
        changed: held by whoever reads or changes anything here; workers wait for it.
        failure: of a worker, which ends the stream.
    """

    def __init__(self, capacity: int):
        self.changed = threading.Condition()
        self.failure: BaseException | None = None
        self._capacity = capacity
        self._jobs: collections.deque[Job] = collections.deque()
        self._closed = False
        self._waiting = 0

    def __len__(self) -> int:
        """Images that wait; under `changed`."""
        return len(self._jobs)

    @property
    def oldest(self) -> float:
        """When the first one was due; under `changed`."""
        return self._jobs[0].due

    @property
    def is_full(self) -> bool:
        """Whether whoever brings more has to wait; under `changed`."""
        return len(self._jobs) >= self._capacity

    @property
    def is_closed(self) -> bool:
        """Whether nothing more comes; under `changed`."""
        return self._closed

    @property
    def is_ending(self) -> bool:
        """Whether nothing comes before answers do, so that no batch is waited for; likewise."""
        return self._closed or self._waiting > 0

    def put(self, job: Job) -> None:
        """Add an image; waits for a place.

        Raises:
            UserError: the stream is closed.
        """
        with self.changed:
            self.changed.wait_for(lambda: self._closed or self.failure or not self.is_full)
            if self.failure is not None:
                raise self.failure
            if self._closed:
                raise UserError("the stream is closed: open another one with model.stream().")
            self._jobs.append(job)
            self.changed.notify_all()

    def take(self, most: int) -> list[Job]:
        """The first images, as many of one dtype as follow each other; under `changed`.

        Those that somebody has cancelled are left out.
        """
        taken: list[Job] = []
        while self._jobs and len(taken) < most:
            if taken and _is_pixels(taken[0]) != _is_pixels(self._jobs[0]):
                break
            job = self._jobs.popleft()
            if job.future.set_running_or_notify_cancel():
                taken.append(job)
        self.changed.notify_all()
        return taken

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While somebody who brings images waits for answers first."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def close(self) -> None:
        """Nothing more comes; what is here goes on."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the stream: what waits gets the error, and whoever brings more."""
        with self.changed:
            self.failure = self.failure or error
            jobs = [job for job in self._jobs if job.future.set_running_or_notify_cancel()]
            self._jobs.clear()
            self.changed.notify_all()
        for job in jobs:
            job.future.set_exception(error)

    def _count(self, change: int) -> None:
        with self.changed:
            self._waiting += change
            self.changed.notify_all()


def _is_pixels(job: Job) -> bool:
    return job.image.dtype == np.uint8
