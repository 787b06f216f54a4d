"""Two processes of one run, of which one ends, stands still, or was told something else.

The other one ends with a sentence within `SECONDS`; the same commands then end as undisturbed ones.
"""

from __future__ import annotations

import functools
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from avit_jax.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE
from tests import commands
from tests.survival.fault import FAILED, IDENTICAL, ONE_SENTENCE, Fault, Outcome
from tests.survival.outcome import LEAKS
from tests.survival.pair import (
    START,
    Pair,
    alike,
    open_mpi,
    slurm,
    wait_for,
    within_rounding,
)
from tests.survival.scene import Scene

SAID = "avit_jax: "  # one that comes to again says what it missed, or what the other one said
SECONDS = 30.0  # as docs/exactness.md says
SLOWLY = 20.0  # more, on a machine that does other things beside
STEP = 6  # which is in the log when a fault comes
STOPPED = (EXIT_PREEMPTED, EXIT_USAGE, EXIT_INTERRUPTED)


def undisturbed(scene: Scene) -> Path:
    """The workdir of a run of two processes that nothing happened to."""

    def make(workdir: Path) -> None:
        pair = Pair.begin(scene.command(workdir))
        assert pair.end(START) == [0, 0], pair.said(0) + pair.said(1)

    return scene.shared._prepared("pair", make)


def disturbed(
    scene: Scene,
    *,
    fault: Callable[[Pair], None] | None = None,
    says: tuple[str, str],
    statuses: tuple[int, ...] = STOPPED,
    step: int = STEP,
    goes_on: bool = True,
    **how: object,
) -> Outcome:
    """A pair that a fault is injected into at a step, or is begun with."""
    workdir = scene.folder / "run"
    reference = undisturbed(scene) if goes_on else None
    pair = Pair.begin(scene.command(workdir), **how)
    if fault is not None:
        wait_for(workdir, step, pair)
        fault(pair)
    found = pair.end((SECONDS + SLOWLY) if fault is not None else START)
    texts = [pair.said(number) for number in range(2)]
    for number, (text, status, wanted) in enumerate(zip(texts, found, says, strict=True)):
        leak = next((leak for leak in LEAKS if leak in text), None)
        if not wanted:  # the one that was killed
            continue
        if leak or status not in statuses or wanted not in text:
            return Outcome(FAILED, f"process {number}, status {status}, {leak}: {text[-600:]}")
    if reference is None:
        return Outcome(ONE_SENTENCE, texts[0].strip().splitlines()[-1])
    again = Pair.begin(scene.command(workdir))
    if again.end(START) != [0, 0]:
        return Outcome(FAILED, f"did not go on: {again.said(0)[-500:]} {again.said(1)[-500:]}")
    return Outcome(IDENTICAL) if alike(workdir, reference) else Outcome(FAILED, "not identical")


def _send(number: int, to: int) -> Callable[[Pair], None]:
    return lambda pair: pair.processes[to].send_signal(number)


def _twice(to: int) -> Callable[[Pair], None]:
    def interrupt(pair: Pair) -> None:
        for _ in range(2):
            pair.processes[to].send_signal(signal.SIGINT)
            time.sleep(0.02)

    return interrupt


def _for_a_minute(to: int) -> Callable[[Pair], None]:
    """It stands still until the other one has given up, or for a minute."""

    def stop(pair: Pair) -> None:
        pair.processes[to].send_signal(signal.SIGSTOP)
        try:
            pair.processes[1 - to].wait(60.0)
        finally:
            pair.processes[to].send_signal(signal.SIGCONT)

    return stop


def port_in_use(scene: Scene) -> Outcome:
    """Somebody else listens where process 0 was to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return disturbed(
            scene,
            says=("not process 0", "not process 0"),
            goes_on=False,
            port=server.getsockname()[1],
        )


def other_host_count(scene: Scene, *, begins: int) -> Outcome:
    """A run of one process goes on with two, and the other way round, to the same figures."""
    workdir = scene.folder / "run"
    if begins == 2:
        pair = Pair.begin(scene.command(workdir))
        wait_for(workdir, STEP, pair)
        for process in pair.processes:
            process.kill()
        pair.end(START)
        ended = scene.run(workdir)
        status, text = ended.status, ended.err
    else:
        one = scene.begin(workdir)
        one.until(lambda: any(line["step"] >= STEP for line in commands.metrics(workdir)))
        one.process.kill()
        one.end()
        pair = Pair.begin(scene.command(workdir))
        status, text = max(pair.end(START)), pair.said(0)
    if status != 0:
        return Outcome(FAILED, text[-900:])
    return within_rounding(scene, workdir)


ENDED = "has ended without a word"
SILENT = "has not been heard of"
SAVED = "start the same command again"


def _fault(name: str, **keywords: object) -> Fault:
    return Fault("hosts", name, functools.partial(disturbed, **keywords))


FAULTS: tuple[Fault, ...] = (
    _fault("KILL of process 1", fault=_send(signal.SIGKILL, 1), says=(ENDED, "")),
    _fault("KILL of process 0", fault=_send(signal.SIGKILL, 0), says=("", ENDED)),
    _fault("KILL of process 1 later", fault=_send(signal.SIGKILL, 1), says=(ENDED, ""), step=18),
    _fault("process 1 stands still", fault=_for_a_minute(1), says=(SILENT, SAID)),
    _fault("process 0 stands still", fault=_for_a_minute(0), says=(SAID, SILENT)),
    _fault("Ctrl-C in process 1", fault=_send(signal.SIGINT, 1), says=(SAVED, SAVED)),
    _fault("Ctrl-C in process 0", fault=_send(signal.SIGINT, 0), says=(SAVED, SAVED)),
    _fault("TERM in process 1", fault=_send(signal.SIGTERM, 1), says=(SAVED, SAVED)),
    _fault("Ctrl-C twice in process 1", fault=_twice(1), says=("saved", "saved")),  # now or before
    *(
        _fault(f"{name}: {what}", fault=_send(signal_, to), says=says, launcher=launcher)
        for name, launcher in (("Slurm", slurm), ("Open MPI", open_mpi))
        for what, signal_, to, says in (
            ("KILL of process 1", signal.SIGKILL, 1, (ENDED, "")),
            ("KILL of process 0", signal.SIGKILL, 0, ("", ENDED)),
            ("Ctrl-C in process 0", signal.SIGINT, 0, (SAVED, SAVED)),
        )
    ),
    _fault(
        "Slurm: process 0 refuses its config",
        flags=(("--config.train.steps=abc",), ()),
        says=("invalid literal", "process 0 has refused its command"),
        goes_on=False,
        launcher=slurm,
    ),
    _fault(
        "other train.steps in process 1",
        flags=((), ("--config.train.steps=25",)),
        says=("train.steps is 25 in process 1", "train.steps is 25 in process 1"),
    ),
    _fault(
        "another seed in process 0",
        flags=(("--config.seed=5",), ()),
        says=("seed is 0 in process 1 and 5", "seed is 0 in process 1 and 5"),
        goes_on=False,
    ),
    _fault(
        "another mode in process 1",
        flags=((), ("--mode=eval",)),
        says=("--mode is 'eval' in process 1", "--mode is 'eval' in process 1"),
        goes_on=False,
    ),
    _fault(
        "process 1 refuses its config",
        flags=((), ("--config.train.steps=abc",)),
        says=("process 1 has refused its command", "invalid literal"),
    ),
    _fault(
        "process 0 refuses its config",
        flags=(("--config.train.steps=abc",), ()),
        says=("invalid literal", "process 0 has refused its command"),
        goes_on=False,
    ),
    _fault(
        "data are missing in process 1",
        flags=((), ("--config.data.name=folder", "--config.data.dir=/nowhere")),
        says=("data.name is 'folder' in process 1", "data.name is 'folder' in process 1"),
        goes_on=False,
    ),
    _fault(
        "both numbered 0",
        numbers=(0, 0),
        says=("two processes are numbered 0", "two processes are numbered 0"),
        goes_on=False,
    ),
    Fault("hosts", "coordinator's port in use", port_in_use),
    Fault("hosts", "one process, then two", functools.partial(other_host_count, begins=1)),
    Fault("hosts", "two processes, then one", functools.partial(other_host_count, begins=2)),
)
