"""How a process finds the others of its run, joins them, and ends so that none is left waiting."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from avit_jax.errors import (
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Preempted,
    UserError,
)
from avit_jax.runtime import relay, rendezvous, system_errors
from avit_jax.runtime.companions import Companions
from avit_jax.runtime.meeting_place import (
    JAX,
    MeetingPlace,
    is_told_alone,
    meeting_place,
)
from avit_jax.runtime.message_line import Line
from avit_jax.runtime.processes import gather
from avit_jax.runtime.tpu_workers import tpu_workers

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted; what was saved is safe."
# JAX's own watch aborts with a dump of the stack, so `companions.py` has to be first by far.
HEARTBEAT_SECONDS = 3600
SHUTDOWN_SECONDS = 60

_joined: list[Companions] = []  # those of this process: one, once it has joined others


def initialise_processes(
    environment: Mapping[str, str] = os.environ, said: Mapping[str, Any] | None = None
) -> None:
    """Join the other processes of this run, if there are any.

    Several processes are recognised by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, by the tasks of a Slurm step or of Open MPI, or by the workers of a TPU slice:
    GKE names them in the environment, a TPU VM in its metadata.

    Args:
        environment: variables of this process.
        said: what it was told to do, by names that a person knows; it has to be the same in all.

    Raises:
        UserError: some of JAX's three variables are missing, or are not numbers that fit; a process
            is missing, was told something else or has refused.
    """
    if is_told_alone(environment):
        return
    place = meeting_place(environment)
    if place is not None:
        _watch(_meet(place, said=said or {}), place.number)
        host = f"[{place.host}]" if ":" in place.host else place.host
        address = f"{host}:{place.port}"
        if place.number != 0:
            address = relay.local_address(place.host, place.port)
        jax.distributed.initialize(
            address,
            place.count,
            place.number,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    elif (
        int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
        or len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
        or "MEGASCALE_COORDINATOR_ADDRESS" in environment  # several slices
        or tpu_workers(environment) > 1
    ):
        jax.distributed.initialize()
    elif any(name in environment for name in JAX):
        missing = [name for name in JAX if name not in environment]
        raise UserError(
            f"of {', '.join(JAX)}, {' and '.join(missing)} is not set: set all three, or none for "
            "a single process."
        )


def watch_over_others(said: Mapping[str, Any]) -> None:
    """Meets processes that a cluster has brought together, where `initialise_processes` did not.

    JAX must have started. Where they cannot reach each other but by JAX, a warning says so.

    Raises:
        UserError: see `initialise_processes`; or devices are of processes that were not joined.
    """
    if _joined or jax.process_count() == 1:
        return
    if not jax.distributed.is_initialized():  # every worker of a TPU slice sees the chips of all
        raise UserError(
            f"this machine is one of {jax.process_count()} that share their devices, but nothing "
            f"says where the others are: set {', '.join(JAX)} on each of them."
        )
    number, count, server = jax.process_index(), jax.process_count(), None
    place = np.zeros(5, np.int32)
    if number == 0:
        server = rendezvous.listen(0)
        place[:] = *socket.inet_aton(_own_address()), server.getsockname()[1]
    *bytes_of_address, port = np.asarray(multihost_utils.broadcast_one_to_all(place)).tolist()
    error, lines = None, {}
    seconds = rendezvous.ANSWER_SECONDS
    try:
        if server is not None:
            lines = rendezvous.gather_all(server, count=count, said=said, seconds=seconds)
        else:
            host = socket.inet_ntoa(bytes(bytes_of_address))
            lines = {
                0: rendezvous.join(
                    host, port, number=number, count=count, said=said, seconds=seconds
                )
            }
    except UserError as raised:
        error = raised
    met = gather(np.asarray(error is None))
    if met.all():
        _watch(lines, number)
    elif isinstance(error, rendezvous.Misfit):
        raise error
    else:
        logger.warning(
            "processes reach each other by JAX alone (%s): when one ends, the others note it late.",
            error or "another could not",
        )


def is_alone() -> bool:
    """Whether this process has joined no others, so that none waits for it at its end."""
    return not _joined and not jax.distributed.is_initialized()


def leave() -> None:
    """Says to the others that this process has done its work; alone, does nothing."""
    for companions in _joined:
        companions.leave()


def end(sentence: str, status: int) -> NoReturn:
    """Ends this process with a sentence, and the others of its run with it."""
    for companions in _joined:
        companions.end(sentence, status)
    print(f"avit_jax: {sentence}", file=sys.stderr)
    sys.exit(status)


def refuse(error: UserError, environment: Mapping[str, str] = os.environ) -> NoReturn:
    """Ends this process, which will not begin, with a sentence that the others hear as well."""
    sentence, status = str(error), error.status
    if not _joined and (place := _known_place(environment)) is not None:
        told = f"process {place.number} has refused its command: {sentence}"
        print(f"avit_jax: {sentence}", file=sys.stderr, flush=True)
        with contextlib.suppress(UserError, OSError):  # whoever cannot be told has not begun
            _meet(place, said={}, refused=told)
        sys.exit(status)
    end(sentence, status)


@contextlib.contextmanager
def all_end_together() -> Iterator[None]:
    """Ends all processes where an error ends this one; alone, the error goes on.

    What tidies up behind an error may wait for other processes, so this is to be the innermost
    context round what can fail in one of several processes.
    """
    try:
        yield
    except Preempted:  # all are, after the same step
        raise
    except UserError as error:
        for companions in _joined:
            companions.end(str(error), error.status)
        raise
    except KeyboardInterrupt:
        for companions in _joined:
            companions.end(INTERRUPTED, EXIT_INTERRUPTED)
        raise
    except Exception as error:
        refused = system_errors.sentence(error)
        for companions in _joined:
            if refused is not None:
                companions.end(refused, EXIT_USAGE)
            companions.leave_word_to_others()
            traceback.print_exc()
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            companions.end(said, 1, is_said=True)
        raise


def _watch(lines: Mapping[int, Line], number: int) -> None:
    companions = Companions(lines, number=number)
    _joined.append(companions)
    companions.watch()


def _known_place(environment: Mapping[str, str]) -> MeetingPlace | None:
    with contextlib.suppress(UserError):
        return meeting_place(environment)
    return None


def _meet(
    place: MeetingPlace, *, said: Mapping[str, Any], refused: str | None = None
) -> dict[int, Line]:
    seconds = rendezvous.ANSWER_SECONDS if refused else rendezvous.START_SECONDS
    asked = {"count": place.count, "said": said, "refused": refused, "seconds": seconds}
    if place.number != 0:
        return {0: rendezvous.join(place.host, place.port, number=place.number, **asked)}
    try:
        server = rendezvous.listen(place.port)
    except OSError as error:
        if rendezvous.is_taken(error):  # by another process 0, which is to hear of it, or not
            rendezvous.join("localhost", place.port, number=0, **asked)
        raise UserError(
            f"port {place.port} cannot be listened on ({error.strerror or error}): write another "
            f"one into {place.setting}, in all processes."
        ) from error
    return rendezvous.gather_all(server, **asked)


def _own_address() -> str:
    """The IPv4 address under which other machines know this one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; says which interface leads outside
        return probe.getsockname()[0]
    return "127.0.0.1"
