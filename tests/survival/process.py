"""Commands that a fault is injected into: begun, waited for, and what they came to."""

from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import commands

SECONDS = 240  # after which a command counts as hanging, on the slowest machine


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended.

    Attributes:
        status: what it exited with, negative for a signal; `None` for one that hung and was killed.
        out: its standard output.
        err: its standard error.
        seconds: from its start to its end.
    """

    status: int | None
    out: str
    err: str
    seconds: float


class Begun:
    """A command in a process that was forked from one that has imported the program.

    Args:
        arguments: the command line, as `commands.command` makes it.
        prepare: called in the process first: a limit, a patch. A function of a module.
        devices: that it has.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        prepare: Callable[[], object] | None = None,
        devices: int = 1,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._began = time.monotonic()
        self.process: multiprocessing.Process = commands.begin(
            arguments[3:], Path(self._folder.name), prepare=prepare, devices=devices
        )

    def err(self) -> str:
        """What it has written to standard error up to now."""
        file = Path(self._folder.name, "err")
        return file.read_text(errors="replace") if file.exists() else ""

    def until(self, happened: Callable[[], bool], *, seconds: float = 60.0) -> bool:
        """Wait until something has happened; `False` if the process ended before, or time did."""
        deadline = time.monotonic() + seconds
        while not happened():
            if self.process.exitcode is not None or time.monotonic() > deadline:
                return happened()
            time.sleep(0.002)
        return True

    def end(self, *, seconds: float = SECONDS) -> Ended:
        """Wait for its end; kill it after so many seconds."""
        self.process.join(seconds)
        status = self.process.exitcode
        if status is None:
            self.process.kill()
            self.process.join()
        took = time.monotonic() - self._began
        out, err = (
            Path(self._folder.name, name).read_text(errors="replace") for name in ("out", "err")
        )
        self._folder.cleanup()
        return Ended(status, out, err, took)


def run(
    arguments: list[str], *, prepare: Callable[[], object] | None = None, devices: int = 1
) -> Ended:
    """Run a command to its end, in a forked process."""
    return Begun(arguments, prepare=prepare, devices=devices).end()


def run_true(arguments: list[str], *, seconds: float = SECONDS, **environment: str) -> Ended:
    """The same in a process of its own from the start, as a user's shell makes it."""
    began = time.monotonic()
    process = commands.start(arguments, **environment)
    status: int | None
    try:
        out, err = process.communicate(timeout=seconds)
        status = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        (out, err), status = process.communicate(), None
    return Ended(status, out, err, time.monotonic() - began)
