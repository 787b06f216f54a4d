"""Several processes of one run: how they find each other, share work and agree."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from avit_jax.errors import UserError
from avit_jax.runtime.tpu_workers import tpu_workers

Result = TypeVar("Result")

_NOTHING, _FAILED = -1, -2  # what process 0 tells the others, beside numbers from 0
# Where to meet, how many processes there are, and which one this is.
_JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialise_processes(environment: Mapping[str, str] = os.environ) -> None:
    """Join the other processes of this run, if there are any.

    Several processes are recognised by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, by the tasks of a Slurm step or of Open MPI, or by the workers of a TPU slice:
    GKE names them in the environment, a TPU VM in its metadata. Slurm sets SLURM_NTASKS and
    SLURM_PROCID in the shell of a batch script too, where nothing else was started; what only srun
    sets is SLURM_STEP_NUM_TASKS.

    Raises:
        UserError: some of JAX's three variables are missing, or are not numbers that fit.
    """
    given = [name for name in _JAX if name in environment]
    if environment.get("JAX_NUM_PROCESSES") == "1":
        return
    if len(given) == len(_JAX):
        jax.distributed.initialize(environment[_JAX[0]], *_count_and_number(environment))
    elif (
        int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
        or len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
        or "MEGASCALE_COORDINATOR_ADDRESS" in environment  # several slices
        or tpu_workers(environment) > 1
    ):
        jax.distributed.initialize()
    elif given:
        missing = [name for name in _JAX if name not in environment]
        raise UserError(
            f"of {', '.join(_JAX)}, {' and '.join(missing)} is not set: set all three, or none for "
            "a single process."
        )


def refuse_unjoined() -> None:
    """Raises UserError where devices are of several processes that have not been joined.

    On a TPU slice every worker sees the chips of all, whether or not they have found each other.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise UserError(
            f"this machine is one of {jax.process_count()} that share their devices, but nothing "
            f"says where the others are: set {', '.join(_JAX)} on each of them."
        )


def _count_and_number(environment: Mapping[str, str]) -> tuple[int, int]:
    count, number = (environment[name] for name in _JAX[1:])
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise UserError(
            f"JAX_PROCESS_ID is {number!r} and JAX_NUM_PROCESSES {count!r}: write whole numbers, "
            "counting the processes from 0."
        )
    return int(count), int(number)


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
    JAX's own preemption service agrees on one, for SIGTERM.
    """
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point

    asked: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"stopping after this step; press Ctrl-C again to stop at once\n")

    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGINT, interrupt)
    return lambda step: bool(asked)


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
