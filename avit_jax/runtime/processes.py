"""Several processes of one run: how they share work and agree; how they meet is `joining.py`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from avit_jax.errors import Preempted, UserError
from avit_jax.runtime import interrupts

Result = TypeVar("Result")
Item = TypeVar("Item")

_NOTHING, _FAILED = -1, -2  # what process 0 tells the others, beside numbers from 0


def refuse_several_processes(mode: str) -> None:
    """Raises UserError where several processes were started for a mode that runs in one."""
    if jax.process_count() > 1:
        raise UserError(
            f"--mode {mode} runs in one process, but {jax.process_count()} were started: start it "
            "on one machine alone, without the launcher of several."
        )


def preemption_notice() -> Callable[[int], bool]:
    """A function that says, after each step, whether SIGTERM or Ctrl-C has asked the run to stop.

    A second Ctrl-C does not wait for the step. Several processes must stop after the same step:
    JAX's own preemption service agrees on one.
    """
    asked: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, interrupts.stop_now)
        os.write(2, b"stopping after this step; press Ctrl-C again to stop at once\n")
        if jax.process_count() > 1:  # the service listens to this signal
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, interrupt)
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    return lambda step: bool(asked)


def interruptible(items: Iterator[Item], stop: Callable[[], bool], *, said: str) -> Iterator[Item]:
    """Items one by one, until the run is asked to stop; they are closed at the end.

    Several processes would have to stop behind the same item, and go on.

    Raises:
        Preempted: `stop` said so; the argument is what is `said`.
    """
    with contextlib.closing(items):
        for item in items:
            yield item
            if jax.process_count() == 1 and stop():
                raise Preempted(said)


def share(total: int) -> range:
    """Which of `total` items in a row this process works on: a contiguous part of them.

    The parts of all processes in order make up the whole, and their sizes differ by one at most.
    """
    index, count = jax.process_index(), jax.process_count()
    return range(index * total // count, (index + 1) * total // count)


def gather(values: np.ndarray) -> np.ndarray:
    """The `values` of all processes, stacked `[processes, ...]`; every process has to call it."""
    if jax.process_count() == 1:
        return values[None]
    return np.asarray(multihost_utils.process_allgather(values))


def in_all_or_none(prepare: Callable[[], Result]) -> Result:
    """Runs `prepare`, which every process calls, and fails in all where it fails in one.

    Otherwise the others would wait for ever for the one that has ended.

    Raises:
        UserError: from `prepare`, here or in another process.
    """
    result, error = None, None
    try:
        result = prepare()
    except UserError as raised:
        error = raised
    failed = np.flatnonzero(gather(np.asarray(error is not None)))
    if error is not None:
        raise error
    if failed.size:
        raise UserError(f"process {failed[0]} could not begin: read its message.")
    return result


def decided_by_process_zero(decide: Callable[[], int | None]) -> int | None:
    """Runs `decide` in process 0 and returns its answer, or raises its error, in all processes.

    The answer is `None` or a number of 0 or more, such as the step of a checkpoint.
    """
    if jax.process_count() == 1:
        return decide()
    answer, error = None, None
    if jax.process_index() == 0:
        try:
            answer = decide()
        except Exception as raised:
            error = raised
    code = _FAILED if error else _NOTHING if answer is None else int(answer)
    code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
    if code == _FAILED:
        raise error or UserError("process 0 failed: read its message.")
    return None if code == _NOTHING else code
