"""Where the processes of a run meet, how many there are and which one this is, as launchers say it.

JAX finds most of this itself, but says it to nobody; and whoever is to meet before JAX joins them
has to know (`rendezvous.py`). Slurm's and Open MPI's ports are those that JAX would take.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from avit_jax.errors import UserError

# Where to meet, how many processes there are, and which one this is.
JAX = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PORT = "JAX_COORDINATOR_PORT"  # for launchers that say where to meet but not at which port
FIRST_PORT, PORTS = 61440, 4096  # of a job whose number alone is known


@dataclasses.dataclass(frozen=True)
class MeetingPlace:
    """Where several processes meet.

    Attributes:
        host: of process 0.
        port: that it listens on.
        count: processes in all.
        number: of this one, from 0.
        setting: the variable by which a user writes another port.
    """

    host: str
    port: int
    count: int
    number: int
    setting: str


def meeting_place(environment: Mapping[str, str]) -> MeetingPlace | None:
    """What the launcher of this process says; `None` for one alone, and where it does not say.

    Slurm sets SLURM_NTASKS and SLURM_PROCID in the shell of a batch script too, where nothing else
    was started; what only srun sets is SLURM_STEP_NUM_TASKS.

    Raises:
        UserError: some of JAX's three variables are missing, or are not numbers that fit.
    """
    given = [name for name in JAX if name in environment]
    if environment.get(JAX[1]) == "1":
        return None
    if len(given) == len(JAX):
        return _of_jax(environment)
    place = _of_slurm(environment) or _of_open_mpi(environment)
    if given and place is None:
        missing = [name for name in JAX if name not in environment]
        raise UserError(
            f"of {', '.join(JAX)}, {' and '.join(missing)} is not set: set all three, or none for "
            "a single process."
        )
    return place


def _of_jax(environment: Mapping[str, str]) -> MeetingPlace:
    address, count, number = (environment[name] for name in JAX)
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 65536):
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS is {address!r}: write process 0's host and a free port of "
            "it, such as node0:12345."
        )
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise UserError(
            f"JAX_PROCESS_ID is {number!r} and JAX_NUM_PROCESSES {count!r}: write whole numbers, "
            "counting the processes from 0."
        )
    return MeetingPlace(host.strip("[]"), int(port), int(count), int(number), JAX[0])


def _of_slurm(environment: Mapping[str, str]) -> MeetingPlace | None:
    # "node[001-004,7],host2": the first is node001.
    first = re.match(r"([^,\[]+)(?:\[([^],-]+))?", environment.get("SLURM_STEP_NODELIST", ""))
    return _of_job(
        environment,
        host=first and first[1] + (first[2] or ""),
        job=environment.get("SLURM_JOB_ID", ""),
        count="SLURM_STEP_NUM_TASKS",
        number="SLURM_PROCID",
    )


def _of_open_mpi(environment: Mapping[str, str]) -> MeetingPlace | None:
    # "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911": its numbers are multiples of 4,096.
    uri = environment.get("OMPI_MCA_orte_hnp_uri", "")
    first = re.match(r"(\d+)\..*?(?:tcp://|tcp6://\[)([^],]+?)(?:[],]|:\d+$)", uri)
    return _of_job(
        environment,
        host=first and first[2],
        job=str(int(first[1]) // PORTS) if first else "",
        count="OMPI_COMM_WORLD_SIZE",
        number="OMPI_COMM_WORLD_RANK",
    )


def _of_job(
    environment: Mapping[str, str], *, host: str | None, job: str, count: str, number: str
) -> MeetingPlace | None:
    processes = int(environment.get(count, "1"))
    if not host or not job.isdecimal() or number not in environment or processes < 2:
        return None
    port = int(environment.get(PORT) or FIRST_PORT + int(job) % PORTS)
    return MeetingPlace(host, port, processes, int(environment[number]), PORT)
