"""A second run in a workdir that is being written, or was when its owner died."""

from __future__ import annotations

import functools
import json
import os
import signal

from tests.survival.fault import Fault, Outcome
from tests.survival.outcome import both, judge
from tests.survival.scene import STEPS, Scene

REFUSED = "is being written by another run"


def stop_at_save(step: int) -> None:
    """In the process of a command: it stands still, with its lock, when it begins to save."""
    from avit_jax.checkpoints.store import Checkpoints

    save = Checkpoints.save

    def stopped(self, at, state, **keywords):
        if at == step:
            os.kill(os.getpid(), signal.SIGSTOP)
        save(self, at, state, **keywords)

    Checkpoints.save = stopped


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def while_one_runs(
    scene: Scene, *, start: str | None, at: int, flags: tuple = (), mode: str = "train", **settings
) -> Outcome:
    """The first stands still at a save, the second comes and goes, the first goes on."""
    workdir = scene.copy(start) if start else scene.folder / "run"
    first = scene.begin(workdir, prepare=functools.partial(stop_at_save, at))
    assert first.until(lambda: _is_stopped(first.process.pid)), first.err()
    second = scene.run(workdir, *flags, mode=mode, **settings)
    os.kill(first.process.pid, signal.SIGCONT)
    return both(
        judge(first.end(), identical=lambda: scene.is_identical(workdir)),
        judge(second, says=REFUSED),
    )


def dead_owner(scene: Scene, text: str) -> Outcome:
    """A lock file whose owner is dead bars nobody."""
    workdir = scene.copy("interrupted")
    (workdir / ".lock").write_text(text)
    ended = scene.run(workdir)
    return judge(ended, identical=lambda: scene.is_identical(workdir))


def at_once(scene: Scene, *, seed: int) -> Outcome:
    """Two that are started together: one does all the work, the other one says why not."""
    workdir = scene.folder / "run"
    both_runs = [scene.begin(workdir), scene.begin(workdir, seed=seed)]
    ended = [one.end() for one in both_runs]
    won = [one for one in ended if one.status == 0]
    lost = [one for one in ended if one.status != 0]
    if not lost:  # the second one came when the first was done
        return judge(ended[0], identical=lambda: scene.is_identical(workdir))
    assert won, [one.err for one in ended]
    seed_of = json.loads((workdir / "config.json").read_text())["seed"]
    identical = (lambda: scene.is_identical(workdir)) if seed_of == 0 else (lambda: True)
    return both(
        judge(won[0], identical=identical), judge(lost[0], says=f"{REFUSED}|another config")
    )


def _predicting_twice(scene: Scene) -> Outcome:
    workdir = scene.copy("finished")
    output = scene.folder / "x.jsonl"
    first = scene.begin(workdir, "--output", str(output), mode="predict", prepare=stop_in_predict)
    assert first.until(lambda: _is_stopped(first.process.pid)), first.err()
    second = scene.run(workdir, "--output", str(output), mode="predict")
    os.kill(first.process.pid, signal.SIGCONT)
    return both(
        judge(first.end(), identical=lambda: scene.predicts_alike(output)),
        judge(second, says="another process is writing"),
    )


def stop_in_predict() -> None:
    """In the process of a command: it stands still before its first line."""
    from avit_jax.runtime.json_lines import JsonLines

    append = JsonLines.append

    def stopped(self, lines):
        JsonLines.append = append
        os.kill(os.getpid(), signal.SIGSTOP)
        append(self, lines)

    JsonLines.append = stopped


def _of(name: str, run, **keywords) -> Fault:
    return Fault("second run", name, functools.partial(run, **keywords))


FAULTS: tuple[Fault, ...] = (
    _of("late, same command", while_one_runs, start=None, at=12),
    _of("at the first save", while_one_runs, start=None, at=4),
    _of("late, another seed", while_one_runs, start=None, at=12, seed=1),
    _of("late, fewer steps", while_one_runs, start=None, at=12, train__steps=12),
    _of("late, another model", while_one_runs, start=None, at=8, model__depth=1),
    _of("at the last save", while_one_runs, start=None, at=STEPS),
    _of("on a resumed run", while_one_runs, start="interrupted", at=STEPS),
    _of("another seed on a resumed run", while_one_runs, start="interrupted", at=STEPS, seed=1),
    _of(
        "calibrate beside a training",
        while_one_runs,
        start="interrupted",
        at=STEPS,
        mode="calibrate",
    ),
    _of("at once, same command", at_once, seed=0),
    _of("at once, another seed", at_once, seed=1),
    _of("dead owner's lock", dead_owner, text="--mode train, process 999999 on elsewhere"),
    _of("dead owner's lock, with a living pid", dead_owner, text="--mode train, process 1 on x"),
    _of("empty lock", dead_owner, text=""),
    Fault("second run", "predict into one file", _predicting_twice),
)
