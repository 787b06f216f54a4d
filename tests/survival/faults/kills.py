"""Signals at exact moments: a function of the forked command is made to send one to itself.

After each the same command has to end as the undisturbed one: state, log, and the summary's values.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avit_jax.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED
from tests import commands
from tests.survival.fault import FAILED, IDENTICAL, Fault, Outcome
from tests.survival.outcome import LEAKS, both, judge
from tests.survival.process import Ended
from tests.survival.scene import Scene

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
# What a command may end with: it may also have been done before anybody asked it to stop.
STATUSES = {
    KILL: {-KILL},
    TERM: {EXIT_PREEMPTED, -TERM, 0},
    INT: {EXIT_PREEMPTED, EXIT_INTERRUPTED, 0},
}
# Of a summary: what is of the day and the machine, or where the run lies.
PASSING = ("seconds", "images_per_second", "wall_time", "checkpoint", "metrics", "summary")
PICTURES = ("depth_maps", "goodput")


def signal_at(target: str, number: int, call: int = 1, behind: bool = False) -> None:
    """In the process of a command: it gets a signal at a call of a function.

    Args:
        target: "module:function" or "module:Class.method", as it is looked up when called.
        number: of the signal.
        call: at which of them, from 1.
        behind: whether it comes when the function is done, and not in front of it.
    """
    place, name = found_at(target)
    function, calls = getattr(place, name), [0]

    @functools.wraps(function)
    def disturbed(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and not behind:
            os.kill(os.getpid(), number)
        result = function(*arguments, **keywords)
        if calls[0] == call and behind:
            os.kill(os.getpid(), number)
        return result

    setattr(place, name, disturbed)


def found_at(target: str) -> tuple[Any, str]:
    """Whose attribute a target is, and its name."""
    module, _, name = target.partition(":")
    place: Any = importlib.import_module(module)
    *classes, name = name.split(".")
    for one in classes:
        place = getattr(place, one)
    return place, name


def torn_line(call: int, file: Path) -> None:
    """In the process of a command: it is killed in the midst of a line of `metrics.jsonl`."""
    from avit_jax.runtime.metrics_log import MetricsWriter

    write, calls = MetricsWriter.write, [0]

    def torn(self: Any, step: int, kind: str, values: Any) -> None:
        calls[0] += 1
        write(self, step, kind, values)
        if calls[0] == call:
            os.truncate(file, file.stat().st_size - 9)
            os.kill(os.getpid(), KILL)

    MetricsWriter.write = torn


def ends_alike(scene: Scene, workdir: Path) -> bool:
    """Whether a training has ended as the undisturbed one, with its summary and pictures."""
    ours, theirs = _summary(workdir), _summary(scene.shared.finished)
    pictures = all((workdir / f"{name}.png").exists() for name in PICTURES)
    return scene.is_identical(workdir) and ours == theirs and pictures


def _summary(workdir: Path) -> dict[str, Any]:
    file = workdir / "summary.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    return {
        name: value
        for name, value in said.items()
        if name not in PICTURES and not any(part in name for part in PASSING)
    }


def stopped_well(ended: Ended, number: int) -> Outcome:
    """Of the command that got the signal: its status, and nothing printed that is not for users."""
    wrong = next((f"printed {leak!r}" for leak in LEAKS if leak in ended.err + ended.out), None)
    if ended.status not in STATUSES[number]:
        wrong = "never came to that moment" if ended.status == 0 else "another status"
    if wrong is None:
        return Outcome(IDENTICAL)
    return Outcome(FAILED, f"{wrong}: status {ended.status}: {ended.err[-900:]}")


def stopped(
    scene: Scene, *, prepare: Callable[[], object], number: int = KILL, start: str | None = None
) -> Outcome:
    """A training that gets a signal, and the same command again."""
    workdir = scene.copy(start) if start else scene.folder / "run"
    first = scene.run(workdir, prepare=prepare)
    again = scene.run(workdir)
    return both(
        stopped_well(first, number),
        judge(again, identical=lambda: ends_alike(scene, workdir)),
    )


def torn(scene: Scene, *, call: int) -> Outcome:
    """A training that is killed within a line of its log, and the same command again."""
    file = scene.folder / "run" / "metrics.jsonl"
    return stopped(scene, prepare=functools.partial(torn_line, call, file))


def stopped_often(scene: Scene, *, calls: tuple[int, ...], number: int) -> Outcome:
    """Several signals, one for each process, at its steps of these numbers; then undisturbed."""
    workdir, outcomes = scene.folder / "run", []
    for call in calls:
        prepare = functools.partial(signal_at, STEP, number, call)
        outcomes.append(stopped_well(scene.run(workdir, prepare=prepare), number))
    again = scene.run(workdir)
    return both(*outcomes, judge(again, identical=lambda: ends_alike(scene, workdir)))


def stopped_by_the_clock(scene: Scene, *, seconds: float, number: int) -> Outcome:
    """A process of its own, as a shell makes it: imports and compilation included."""
    workdir = scene.folder / "run"
    process = commands.start(scene.command(workdir))
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    outcome = stopped_well(Ended(process.returncode, out, err, 0.0), number)
    return both(outcome, judge(scene.run(workdir), identical=lambda: ends_alike(scene, workdir)))


def stopped_mode(
    scene: Scene, *, mode: str, prepare: Callable[[], object], number: int, output: str
) -> Outcome:
    """Another mode that gets a signal, and then leaves what an undisturbed one does."""
    workdir = scene.copy("finished")
    for left in ("eval.json", "predictions.jsonl", "predictions.jsonl.meta.json"):
        (workdir / left).unlink()
    first = scene.run(workdir, mode=mode, prepare=prepare)
    again = scene.run(workdir, mode=mode)
    alike = {
        "eval": lambda: scene.evaluates_alike(workdir),
        "predict": lambda: scene.predicts_alike(workdir / "predictions.jsonl"),
    }.get(mode, lambda: (workdir / output).exists())
    return both(
        stopped_well(first, number),
        judge(again, identical=alike),
        judge(scene.run(workdir), identical=lambda: scene.is_identical(workdir)),
    )


STEP = "avit_jax.training.loop:Run.advance"
STORE, LOOP = "avit_jax.checkpoints.store", "avit_jax.training.loop"
# What a training does, in the order of its life; (what, call, behind) -> a moment.
START = [
    ("avit_jax.main:checked_workdir", 1, False),
    ("avit_jax.main:initialise_processes", 1, False),
    ("avit_jax.main:use_compilation_cache", 1, True),
    (f"{LOOP}:refuse_other_run", 1, True),
    (f"{LOOP}:teacher_weights", 1, False),
    (f"{LOOP}:restore_or_init", 1, False),
    (f"{LOOP}:restore_or_init", 1, True),
    (f"{LOOP}:write_config", 1, False),
    (f"{LOOP}:write_config", 1, True),
]
STEPPING = [(STEP, call, behind) for call in (1, 7) for behind in (False, True)]
SAVES = [
    (f"{STORE}:Checkpoints._make_room", 2, False),
    (f"{STORE}:Checkpoints._make_room", 3, True),
    (f"{STORE}:ocp.save_async", 2, False),
    (f"{STORE}:ocp.save_async", 2, True),
    (f"{STORE}:manifest.write", 2, False),
    (f"{STORE}:manifest.write", 3, True),
    ("avit_jax.checkpoints.manifest:write_json_atomic", 1, False),
    ("avit_jax.checkpoints.manifest:write_json_atomic", 4, True),
    ("avit_jax.checkpoints.manifest:sync_directory", 3, False),
    ("avit_jax.checkpoints.manifest:sync_directory", 1, True),
]
LAST = [
    (f"{LOOP}:evaluate", 1, False),
    (f"{LOOP}:evaluate", 1, True),
    ("avit_jax.training.run_log:RunLog.evaluated", 1, True),
    (f"{LOOP}:report.finish", 1, False),
    ("avit_jax.evaluation.report:summarise", 1, False),
    ("avit_jax.evaluation.report:goodput_picture.write", 1, False),
    ("avit_jax.evaluation.report:depth_maps.write", 1, False),
    ("avit_jax.evaluation.report:write_json_atomic", 1, False),
    ("avit_jax.evaluation.report:summary_rows", 1, False),
]
MOMENTS = [*START, *STEPPING, *SAVES, *LAST]
MODES = [
    ("eval", "avit_jax.evaluation.evaluate:sums", "eval.json"),
    ("eval", "avit_jax.evaluation.run:write_json_atomic", "eval.json"),
    ("predict", "avit_jax.runtime.json_lines:JsonLines.append", "predictions.jsonl"),
    ("export", "os:replace", "export"),
    ("visualize", "os:replace", "visualize"),
]


def _faults() -> list[Fault]:
    found = []

    def add(name: str, run: Callable[..., Outcome], **keywords: Any) -> None:
        found.append(Fault("kill", name, functools.partial(run, **keywords)))

    for number in (KILL, TERM, INT):
        for target, call, behind in MOMENTS:
            if number != KILL and target.startswith(STORE) and behind:
                continue  # the same moment for a signal that waits for the step
            place = "behind" if behind else "at"
            name = f"{number.name} {place} call {call} of {target.removeprefix('avit_jax.')}"
            prepare = functools.partial(signal_at, target, number, call, behind)
            add(name, stopped, prepare=prepare, number=number)
    for call in (2, 8):
        add(f"KILL in line {call} of the log", torn, call=call)
    for number, calls in ((KILL, (3, 7, 2)), (TERM, (5, 1, 9)), (INT, (2, 4, 8))):
        add(f"{number.name} thrice", stopped_often, calls=calls, number=number)
    for call in (1, 3):
        add(
            f"KILL at step {call} of a run that goes on",
            stopped,
            prepare=functools.partial(signal_at, STEP, KILL, call),
            start="interrupted",
        )
    for number in (KILL, INT, TERM):
        for seconds in (0.3, 1.5, 4.0):
            name = f"{number.name} {seconds:g} s behind the start"
            add(name, stopped_by_the_clock, seconds=seconds, number=number)
    for mode, target, output in MODES:
        for number in (KILL, INT):
            prepare = functools.partial(signal_at, target, number)
            where = target.rpartition(":")[2]
            keywords = {"mode": mode, "prepare": prepare, "number": number, "output": output}
            add(f"{number.name} in {mode} at {where}", stopped_mode, **keywords)
    return found


FAULTS: tuple[Fault, ...] = tuple(_faults())
