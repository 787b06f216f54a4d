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
        host: of process 0; of Open MPI's, as JAX has it too, the host of mpirun.
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
    """What the launcher of this process says of others; `None` where it says too little.

    All three of JAX's variables come first; its address alone takes the place of Slurm's or Open
    MPI's. Slurm sets SLURM_NTASKS and SLURM_PROCID in the shell of a batch script too, where
    nothing else was started; what only srun sets is SLURM_STEP_NUM_TASKS.

    Raises:
        UserError: a variable holds no address, or no number that fits.
    """
    if is_told_alone(environment):
        return None
    if all(name in environment for name in JAX):
        count, number = _numbers(environment, count=JAX[1], number=JAX[2])
        return MeetingPlace(*_host_and_port(environment[JAX[0]]), count, number, JAX[0])
    place = _of_slurm(environment) or _of_open_mpi(environment)
    if place is None or JAX[0] not in environment:
        return place
    host, port = _host_and_port(environment[JAX[0]])
    return dataclasses.replace(place, host=host, port=port, setting=JAX[0])


def is_told_alone(environment: Mapping[str, str]) -> bool:
    """Whether a user says that this process joins no others, whatever the launcher says."""
    return environment.get(JAX[1]) == "1"


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 65536):
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS is {address!r}: write process 0's host and a free port of "
            "it, such as node0:12345."
        )
    return host.strip("[]"), int(port)


def _numbers(environment: Mapping[str, str], *, count: str, number: str) -> tuple[int, int]:
    processes, own = environment[count], environment[number]
    if not (processes.isdecimal() and own.isdecimal() and int(own) < int(processes)):
        raise UserError(
            f"{number} is {own!r} and {count} {processes!r}: write whole numbers, counting the "
            "processes from 0."
        )
    return int(processes), int(own)


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
    is_said = host and job.isdecimal() and count in environment and number in environment
    if not host or not is_said or environment[count] == "1":
        return None
    processes, own = _numbers(environment, count=count, number=number)
    port = environment.get(PORT) or str(FIRST_PORT + int(job) % PORTS)
    if not (port.isdecimal() and int(port) < 65536):
        raise UserError(f"{PORT} is {port!r}: write a free port of process 0, such as 12345.")
    return MeetingPlace(host, int(port), processes, own, PORT)
