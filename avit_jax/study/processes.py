"""Cells in processes of their own, side by side: a crash or kill of one is one cell's loss."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from avit_jax.study.places import Place
from avit_jax.study.results import LOG

COMMAND = (sys.executable, "-m", "avit_jax.study.cell_process")
_LOOK = 0.2  # seconds between looks at who has ended
_LONGEST = 300  # characters of its last words


class Ended(NamedTuple):
    """A process that has ended.

    Attributes:
        name: of its cell.
        status: 0, an exit status, or minus the number of the signal that ended it.
        log: all that it and earlier processes of the cell have printed.
    """

    name: str
    status: int
    log: Path


def side_by_side(
    tasks: Iterable[dict[str, Any]], places: list[Place], stop: Callable[[], bool]
) -> Iterator[Ended]:
    """Work on tasks, as many at a time as there are places; those that end are told as they do.

    Args:
        tasks: from `cell_process.task_of`.
        places: environment variables of those that run at a time.
        stop: whether to end early: then nothing more is begun, and what runs is asked to save and
            end, which is waited for.
    """
    waiting, free = iter(tasks), list(places)
    running: dict[subprocess.Popen, tuple[dict[str, Any], Place]] = {}
    is_asked = False
    try:
        while True:
            while free and not stop():
                task = next(waiting, None)
                if task is None:
                    break
                place = free.pop(0)
                running[_start(task, place)] = (task, place)
            if not running:
                return
            time.sleep(_LOOK)
            if stop() and not is_asked:
                is_asked = True
                for process in running:
                    process.terminate()
            for process in [one for one in running if one.poll() is not None]:
                task, place = running.pop(process)
                free.append(place)
                yield Ended(task["cell"]["name"], process.returncode, Path(task["workdir"], LOG))
    finally:
        for process in running:
            process.kill()
            process.wait()


def _start(task: dict[str, Any], place: Place) -> subprocess.Popen:
    workdir = Path(task["workdir"])
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOG).open("ab") as log:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | place,
            start_new_session=True,  # Ctrl-C reaches the study alone, which lets them save
        )
    with contextlib.suppress(BrokenPipeError):  # it has ended already, which its status says
        process.stdin.write(json.dumps(task).encode())
        process.stdin.close()
    return process


def last_words(log: Path) -> str:
    """The last line that a process has printed, or its beginning."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = (line.strip() for line in reversed(lines) if line.strip())
    return next(last, "it printed nothing")[:_LONGEST]
