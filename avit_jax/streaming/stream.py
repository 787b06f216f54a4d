"""Answers to images that come one by one, by programs whose batches are kept full.

Images that a segment cannot finish wait in a queue until there are enough of them for the next
one, whichever batch they came in. So every program runs on whole batches, and the time for an image
is that of what it needs itself.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Self

from avit_jax.data.example import message_of
from avit_jax.data.given_images import checked_images
from avit_jax.streaming.answer import Answer, Job
from avit_jax.streaming.inbox import Inbox
from avit_jax.streaming.limits import Limits
from avit_jax.streaming.programs import Programs
from avit_jax.streaming.worker import Worker

AHEAD = 64  # batches of answers that may wait for the one before them


class Stream:
    """What `model.stream(params)` gives: use it with `with`, or close it.

    Args:
        programs: compiled segments, of every device that takes part.
        limits: of what it holds and for how long.
        image_size: side S of the images, in pixels.
        clock: returns seconds.
    """

    def __init__(
        self,
        programs: Sequence[Programs],
        *,
        limits: Limits,
        image_size: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._size, self._clock = image_size, clock
        self._ahead = AHEAD * sum(one.batch_size for one in programs)
        self._inbox = Inbox(limits.capacity)
        self._workers = [
            Worker(self._inbox, one, max_wait=limits.max_wait, clock=clock) for one in programs
        ]
        for worker in self._workers:
            worker.start()

    def submit(self, image: Any, *, due: float | None = None) -> Future[Answer]:
        """Bring one image; waits while the stream has no place for it.

        Args:
            image: `[S, S, 3]`, normalised, or uint8 pixels, see `given_images`; it may be changed
                afterwards. Or the exception that stands for an image that there is not.
            due: when it ought to have come, in seconds of `time.monotonic()`, where it has been
                held up; latency and waiting count from there. Now by default.

        Returns:
            The future of its answer. An image that cannot be used has an answer that says so.
            Cancelling it spares the work, if that has not begun.

        Raises:
            UserError: the stream is closed.
        """
        now = self._clock()
        due = now if due is None else due
        try:
            if isinstance(image, Exception):
                raise image
            (checked,) = checked_images([image], self._size)
        except Exception as error:  # whatever an image is, others are not disturbed by it
            failed: Future[Answer] = Future()
            failed.set_result(
                Answer(values={}, segment=None, seconds=now - due, error=message_of(error))
            )
            return failed
        job = Job(image=checked, due=due)
        self._inbox.put(job)
        return job.future

    def map(self, images: Iterable[Any]) -> Iterator[Answer]:
        """Answers to all images, in their order.

        Images are taken as there is a place for them; answers are handed out in between. At most
        64 batches of answers wait for one before them. Whoever stops early takes back what has not
        begun.

        Args:
            images: each as `submit` takes it.
        """
        pending: collections.deque[Future[Answer]] = collections.deque()
        try:
            for image in images:
                pending.append(self.submit(image))
                while pending and (pending[0].done() or len(pending) >= self._ahead):
                    yield self._result(pending.popleft())
            while pending:
                yield self._result(pending.popleft())
        finally:
            for future in pending:
                future.cancel()

    def _result(self, future: Future[Answer]) -> Answer:
        if not future.done():
            with self._inbox.waiting():
                return future.result()
        return future.result()

    def close(self) -> None:
        """Answer what has been brought, and end. Nothing is lost; a second call does nothing."""
        self._inbox.close()
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
