"""Batches decoded by several processes straight into memory that they share with this one.

The rows of a batch are dealt out to all processes, so a batch takes as long as its share and few
batches have to be held at a time, however many processes there are. No image is copied on its way:
a process writes it where the batch lies, and the batch's memory is used again when nothing refers
to it any more.

A process ends with the one that it works for, even where that is killed; and where a process of its
own is killed, the batches end with one sentence. Neither leaves memory behind (`shared_batch.py`).
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, reduction, util
from typing import Any, Protocol

import numpy as np

from avit_jax.data.shared_batch import Layout, SharedBatch
from avit_jax.errors import UserError

Batch = dict[str, np.ndarray]
Drawn = tuple[int, np.ndarray]  # number of a batch, over all hosts, and the examples drawn for it

BATCHES_AHEAD = 2  # decoded while the consumer has one
_SECONDS_TO_END = 10.0  # of a process that was killed, which the kernel still has to take apart


class Load(Protocol):
    """What fills batches; picklable."""

    def layout(self, size: int) -> Layout:
        """Shapes and types of a batch of `size` examples; one is `requested`, int64 [size]."""
        ...

    def fill(self, batch: Batch, number: int, rows: range) -> None:
        """Decodes the examples `requested` in these rows into all other arrays of a batch."""
        ...


def batches_of_processes(
    load: Load, draws: Sequence[Drawn], *, workers: int, threads: int
) -> Iterator[Batch]:
    """Yields the batches of `draws` in order; close the iterator to end the processes at once.

    Args:
        load: fills them.
        draws: what is in them; all alike in size.
        workers: processes, at least one.
        threads: of each process.

    Raises:
        UserError: a process has ended, or whatever `load` raises, where that batch is due.
    """
    if not len(draws):
        return
    with contextlib.closing(_Workers(load, len(draws[0][1]), workers, threads)) as pool:
        for number in range(len(draws)):
            pool.begin(*draws[number])
            if number >= BATCHES_AHEAD:
                yield pool.next()
        for _ in range(min(BATCHES_AHEAD, len(draws))):
            yield pool.next()


class _Begun:
    """A batch that is being decoded, and what is missing of it."""

    def __init__(self, memory: SharedBatch, number: int, pieces: int) -> None:
        self.memory, self.number, self.pieces = memory, number, pieces
        self.error: Exception | None = None


class _Worker:
    """One process and this end of its connections."""

    def __init__(self, load: Load, layout: Layout, threads: int, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.tasks, tasks = context.Pipe()
        self.replies, replies = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_serve, args=(load, layout, threads, tasks, replies), name=name, daemon=True
        )
        self.process.start()
        # With the process's own ends gone here, its end is that of the connection.
        tasks.close()
        replies.close()


class _Workers:
    """All processes, the batches that they are at, and memory that is free."""

    def __init__(self, load: Load, size: int, workers: int, threads: int) -> None:
        self._layout, self._size = load.layout(size), size
        self._pieces = np.linspace(0, size, min(size, workers * threads) + 1).astype(int).tolist()
        self._memories: list[SharedBatch] = []
        self._free: collections.deque[SharedBatch] = collections.deque()
        self._begun: collections.deque[_Begun] = collections.deque()
        self._workers: list[_Worker] = []
        # Before multiprocessing asks the processes to end, which they would not hear.
        self._at_exit = util.Finalize(self, _end, args=(self._workers,), exitpriority=100)
        for number in range(min(workers, size)):
            self._workers.append(_Worker(load, self._layout, threads, f"decode {number}"))

    def begin(self, number: int, requested: np.ndarray) -> None:
        """Has the processes decode one batch more."""
        memory = self._free.popleft() if self._free else self._new_memory()
        memory.arrays()["requested"][:] = requested
        begun = _Begun(memory, number, len(self._pieces) - 1)
        self._begun.append(begun)
        place = self._memories.index(memory)
        for piece in range(begun.pieces):
            worker = self._workers[piece % len(self._workers)]
            rows = self._pieces[piece], self._pieces[piece + 1]
            try:
                worker.tasks.send((number, place, rows))
            except OSError:
                raise self._ended(worker) from None

    def next(self) -> Batch:
        """Returns the oldest batch once it is complete."""
        due = self._begun[0]
        while due.pieces:
            self._take_replies()
        self._begun.popleft()
        memory, free = due.memory, self._free
        if due.error is not None:
            raise due.error
        return memory.arrays(when_unused=lambda: free.append(memory))

    def close(self) -> None:
        """Ends the processes, whatever they are at: they hold nothing that has to be saved."""
        self._at_exit()

    def _take_replies(self) -> None:
        of_connection = {worker.replies: worker for worker in self._workers}
        for ready in connection.wait(list(of_connection)):
            try:
                number, error = ready.recv()
            except (EOFError, OSError):
                raise self._ended(of_connection[ready]) from None
            begun = next(begun for begun in self._begun if begun.number == number)
            begun.pieces -= 1
            begun.error = begun.error or error

    def _new_memory(self) -> SharedBatch:
        memory = SharedBatch(self._layout)
        self._memories.append(memory)
        for worker in self._workers:
            try:
                worker.tasks.send(None)
                reduction.send_handle(worker.tasks, memory.file, worker.process.pid)
            except OSError:
                raise self._ended(worker) from None
        memory.close_file()
        return memory

    def _ended(self, worker: _Worker) -> UserError:
        worker.process.join(_SECONDS_TO_END)
        status = worker.process.exitcode
        how = f"with status {status}"
        why = "what it has printed above says why"
        if status is not None and status < 0:
            how = f"by {signal.Signals(-status).name}"
            why = "the system kills processes when memory is short, so write fewer if it was"
        return UserError(
            f"one of {len(self._workers)} decoding processes (config.data.workers) was ended "
            f"{how}; {why}, and start again to go on"
        )


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join(_SECONDS_TO_END)
        worker.tasks.close()
        worker.replies.close()


def _serve(
    load: Load,
    layout: Layout,
    threads: int,
    tasks: connection.Connection,
    replies: connection.Connection,
) -> None:
    """Decodes rows as told, until the process that tells has gone."""
    # Ctrl-C, and a scheduler's SIGTERM, reach all processes, and the run still needs batches.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    memories: list[SharedBatch] = []
    one_at_a_time = threading.Lock()

    def decode(number: int, memory: SharedBatch, rows: tuple[int, int]) -> None:
        error: Exception | None = None
        try:
            load.fill(memory.arrays(), number, range(*rows))
        except Exception as problem:
            error = _able_to_travel(problem)
        with one_at_a_time:
            replies.send((number, error))

    with ThreadPoolExecutor(threads) as pool:
        while True:
            try:
                task: Any = tasks.recv()
            except EOFError:
                os._exit(0)  # without waiting for what is still being read
            if task is None:
                file = reduction.recv_handle(tasks)
                memories.append(SharedBatch(layout, file))
                memories[-1].close_file()
            else:
                number, place, rows = task
                pool.submit(decode, number, memories[place], rows)


def _end_with_parent() -> None:
    """Waits for the end of the process that has started this one, in whatever way it comes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _able_to_travel(error: Exception) -> Exception:
    """An error with where it came from, as the text of which it arrives if it cannot itself."""
    if not isinstance(error, UserError):
        error.add_note(traceback.format_exc())
    try:
        reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
