"""The next batch goes to the devices while they compute: a thread takes and places one ahead.

The order of the batches is that of their iterator, so the data position stays the step number. The
devices hold one batch more than the steps in flight do; the host holds one that waits for room.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

Host = TypeVar("Host")
Placed = TypeVar("Placed")

AHEAD = 1  # batches on the devices that no step has taken yet
CLOSING_SECONDS = 10.0  # that the end waits for a batch nobody wants any more


class DevicePrefetch(Generic[Placed]):
    """Batches on the devices, in order.

    Args:
        batches: on the host; only this object's thread takes from them, and closes them.
        place: puts a batch on the devices.
    """

    def __init__(self, batches: Generator[Host, Any, Any], place: Callable[[Host], Placed]) -> None:
        self._room = threading.Semaphore(AHEAD)
        self._placed: queue.SimpleQueue[tuple[Placed | None, BaseException | None]]
        self._placed = queue.SimpleQueue()
        self._next: tuple[Placed | None, BaseException | None] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(batches, place), name="device-prefetch", daemon=True
        )
        self._thread.start()

    def arrives(self, seconds: float) -> bool:
        """Waits for the next batch, at most so long; returns whether it is there."""
        if self._next is None:
            try:
                self._next = (
                    self._placed.get(timeout=seconds) if seconds else self._placed.get(False)
                )
            except queue.Empty:
                return False
        return True

    def take(self) -> Placed:
        """Returns the next batch; raises what the iterator raised in its place."""
        placed, error = self._next or self._placed.get()
        self._next = None
        if error is not None:
            raise error
        self._room.release()
        return placed

    def close(self) -> None:
        """Ends the thread behind the batch that it waits for, which then closes the batches.

        Where that one does not come in time, because a disk or a store hangs or is very slow, the
        thread is left waiting, with whatever reads for it.
        """
        self._closed.set()
        self._room.release()
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            logger.warning(
                "no batch has come for %.0f s after its reader was asked to end: it is left behind",
                CLOSING_SECONDS,
            )

    def _run(self, batches: Generator[Host, Any, Any], place: Callable[[Host], Placed]) -> None:
        try:
            with contextlib.closing(batches):
                for batch in batches:
                    self._room.acquire()
                    if self._closed.is_set():
                        return
                    self._placed.put((place(batch), None))
            self._placed.put((None, StopIteration()))
        except BaseException as error:  # whatever it is belongs to the one who takes
            self._placed.put((None, error))
