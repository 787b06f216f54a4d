"""Processes that a race needs beside its own: another number of devices is one from its start.

XLA's threads and devices are fixed when a process starts, so every number of devices has a process
of its own, and so has every peer, whose threads would take the cores in the turns of others. They
wait while it is not their turn: never two of them work at once.
"""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

from avit_jax.benchmark.answers import Answers
from avit_jax.benchmark.cases import Case
from avit_jax.benchmark.contenders import Contenders
from avit_jax.config.inference import Benchmark
from avit_jax.errors import UserError
from avit_jax.execution.plan import Plan
from avit_jax.models.vit import ViTShape
from avit_jax.runtime import cpu_devices

COMMAND = (sys.executable, "-m", "avit_jax.benchmark.worker")


class OtherProcess:
    """A worker, see `worker.py`; it ends when it is closed, or when this process does.

    Args:
        environment: variables that it has otherwise than this process.
    """

    def __init__(self, **environment: str):
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        )

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of a method of `Worker` over there.

        Raises:
            UserError: the process has ended.
            Exception: whatever the method raised.
        """
        try:
            pickle.dump((method, arguments), self._process.stdin)
            self._process.stdin.flush()
            result, error = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError) as gone:
            raise UserError(
                f"a process of the benchmark has ended with status {self._process.wait()} (-9: the "
                "system had no memory left): write smaller config.benchmark.batch_sizes, or start "
                "with JAX_NUM_CPU_DEVICES=1."
            ) from gone
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Let it end."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class ProgramsElsewhere:
    """What `Programs` is, in another process."""

    def __init__(self, process: OtherProcess, case: Case, plan: Plan, chosen: Benchmark):
        self._process = process
        names, self.left_out = process.ask("programs", case, plan, chosen)
        self.contenders: Contenders = {
            name: functools.partial(process.ask, "call", name) for name in names
        }

    def figures(self, name: str, masked: Answers) -> dict[str, Any]:
        """See `Programs.figures`."""
        return self._process.ask("figures", name, masked)


class OtherProcesses:
    """The other processes of a benchmark, started when first needed, kept from case to case."""

    def __init__(self):
        self._running: dict[int | str, OtherProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._running.values():
            process.close()

    def programs(
        self, devices: int, case: Case, plan: Plan, chosen: Benchmark
    ) -> ProgramsElsewhere:
        """A case's programs on so many devices."""
        process = self._get(devices, {cpu_devices.VARIABLE: str(devices)})
        return ProgramsElsewhere(process, case, plan, chosen)

    def peer(self, kind: str, shape: ViTShape, images: Any, calls: int) -> Callable[[], Any]:
        """A peer's network on a CPU, as a function to time."""
        process = self._get(kind, {})
        process.ask("peer", kind, shape, images, calls)
        return functools.partial(process.ask, "call", kind)

    def _get(self, key: int | str, variables: dict[str, str]) -> OtherProcess:
        if key not in self._running:
            self._running[key] = OtherProcess(**variables)
        return self._running[key]
