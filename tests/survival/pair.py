"""Two processes of one run, begun as a launcher begins them, and what they left."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from tests import commands, compiling
from tests.survival.fault import FAILED, IDENTICAL, Outcome
from tests.survival.scene import Scene, final_state

START = 240.0  # seconds until a step is there, or a command that is not disturbed ends


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def by_hand(number: int, port: int) -> dict[str, str]:
    """JAX's own variables."""
    return {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(number),
    }


def slurm(number: int, port: int) -> dict[str, str]:
    """What srun says to a task."""
    return {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "JAX_COORDINATOR_PORT": str(port),
    }


def open_mpi(number: int, port: int) -> dict[str, str]:
    """What mpirun says to a process."""
    return {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
        "JAX_COORDINATOR_PORT": str(port),
    }


Launcher = Callable[[int, int], dict[str, str]]


@dataclasses.dataclass
class Pair:
    """Two processes, and what they print."""

    processes: list[subprocess.Popen]
    written: list[IO[bytes]]
    last: list[str] = dataclasses.field(default_factory=list)  # once they have ended

    @classmethod
    def begin(
        cls,
        command: list[str],
        *,
        flags: Sequence[tuple[str, ...]] = ((), ()),
        numbers: tuple[int, int] = (0, 1),
        port: int | None = None,
        launcher: Launcher = by_hand,
    ) -> Pair:
        """Start both, each with what a launcher says in its environment."""
        port = free_port() if port is None else port
        environment = os.environ | {"XLA_FLAGS": compiling.flags_for(1), "JAX_PLATFORMS": "cpu"}
        written = [tempfile.TemporaryFile() for _ in numbers]
        processes = [
            subprocess.Popen(
                [*command, *own],
                cwd=commands.ROOT,
                env=environment | launcher(number, port),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            for number, own, file in zip(numbers, flags, written, strict=True)
        ]
        return cls(processes, written)

    def said(self, number: int) -> str:
        """What one of them has printed."""
        if self.last:
            return self.last[number]
        self.written[number].seek(0)
        return self.written[number].read().decode("utf-8", "replace")

    def end(self, seconds: float) -> list[int | None]:
        """Wait for both; how they exited, `None` for one that had to be killed."""
        deadline, found = time.monotonic() + seconds, []
        for process in self.processes:
            try:
                found.append(process.wait(max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                found.append(None)
        if not self.last:
            self.last = [self.said(number) for number in range(len(self.processes))]
        for file in self.written:
            file.close()
        return found


def wait_for(workdir: Path, step: int, pair: Pair) -> None:
    """Wait until a step is in the log."""
    deadline = time.monotonic() + START
    while not any(line["step"] >= step for line in commands.metrics(workdir)):
        assert all(process.poll() is None for process in pair.processes), pair.said(0)
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.005)


def alike(workdir: Path, reference: Path) -> bool:
    """Whether two runs have ended alike, to the bit."""
    states = final_state(workdir), final_state(reference)
    same = all(np.array_equal(*pair, equal_nan=True) for pair in zip(*states, strict=True))
    return same and commands.metrics(workdir) == commands.metrics(reference)


def within_rounding(scene: Scene, workdir: Path) -> Outcome:
    """Whether a log is that of the undisturbed run, within rounding."""
    lines = zip(commands.metrics(workdir), scene.shared.metrics, strict=True)
    close = all(
        np.isclose(ours[name], theirs[name], rtol=1e-3, atol=1e-3)
        for ours, theirs in lines
        for name in ("loss", "task_loss", "substituted")
        if name in theirs
    )
    return Outcome(IDENTICAL, "within rounding") if close else Outcome(FAILED, "other figures")
