"""Images that vanish, change, are slow or no files at all, while a training or prediction reads."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from avit_jax.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED
from tests import commands
from tests.survival import superuser
from tests.survival.fault import FAILED, IDENTICAL, SAID, Fault, Outcome
from tests.survival.faults.kills import KILL, signal_at
from tests.survival.outcome import LEAKS, both, judge
from tests.survival.pictures import (
    CHANGED_BETWEEN,
    ONE_BAD,
    PER_CLASS,
    TOO_MANY,
    all_vanish,
    forbid,
    make_data,
)
from tests.survival.process import Begun, Ended, run
from tests.survival.scene import SETTINGS, Scene

HANGS_AT = 150  # images read, when some steps are done
FOR_EVER = 1e6  # seconds
STOPPING = 60.0  # that a process whose disk hangs may take to end
CHANGED_AT = 9  # step behind which something happens to the data, when others were read


def _data(scene: Scene) -> Path:
    source = scene.shared._prepared("pictures", make_data)
    return Path(shutil.copytree(source, scene.folder / "data"))


def _command(workdir: Path, data: Path, **settings: Any) -> list[str]:
    own = {"data__name": "folder", "data__dir": str(data), "data__workers": 0}
    return commands.command(workdir, **SETTINGS | {"checkpoint__every": 1.0} | own | settings)


def _undisturbed(scene: Scene) -> Path:
    def make(workdir: Path) -> None:
        ended = run(_command(workdir, scene.shared._prepared("pictures", make_data)))
        assert ended.status == 0, ended.err

    return scene.shared._prepared("pictured", make)


def obey(change: Callable[[Path], None]) -> None:
    """In the process of a command: modes hold, if they are what is changed."""
    if change is forbid:
        superuser.obey_modes()


def change_in_training(change: Callable[[Path], None], data: Path) -> None:
    """In the process of a command: something happens to the data behind a step."""
    from avit_jax.training.loop import Run

    advance, calls = Run.advance, [0]
    obey(change)

    def changed(self: Run, batch: Any) -> None:
        calls[0] += 1
        advance(self, batch)
        if calls[0] == CHANGED_AT:
            change(data)

    Run.advance = changed


def change_in_prediction(change: Callable[[Path], None], data: Path) -> None:
    """In the process of a command: something happens to the images behind the first answers."""
    from avit_jax.runtime.json_lines import JsonLines

    append, calls = JsonLines.append, [0]
    obey(change)

    def changed(self: JsonLines, lines: Any) -> None:
        append(self, lines)
        calls[0] += 1
        if calls[0] == 1:
            change(data)

    JsonLines.append = changed


def slow(seconds: float, every: int) -> None:
    """In the process of a command: reading some files takes long, as from far away."""
    from avit_jax.data import folder

    read, calls = folder.read_file, [0]

    def slowly(path: str) -> bytes:
        calls[0] += 1
        if calls[0] % every == 0:
            time.sleep(seconds)
        return read(path)

    folder.read_file = slowly


def hang(at: int) -> None:
    """In the process of a command: from one training image on, reading them never ends."""
    from avit_jax.data import folder

    read, calls = folder.read_file, [0]

    def hanging(path: str) -> bytes:
        calls[0] += f"{os.sep}train{os.sep}" in path
        if calls[0] >= at and f"{os.sep}train{os.sep}" in path:
            time.sleep(FOR_EVER)
        return read(path)

    folder.read_file = hanging


def training(scene: Scene, *, change: Callable[[Path], None], at_once: bool, says: str) -> Outcome:
    """A training whose data change behind a step, or before it begins."""
    data, workdir = _data(scene), scene.folder / "run"
    if at_once:
        change(data)
        prepare = functools.partial(obey, change)
        return judge(run(_command(workdir, data), prepare=prepare), says=says)
    prepare = functools.partial(change_in_training, change, data)
    return judge(run(_command(workdir, data), prepare=prepare), says=says)


def prediction(scene: Scene, *, change: Callable[[Path], None], at_once: bool) -> Outcome:
    """A prediction in which one image becomes bad: a line says why, and all others have answers."""
    data, workdir = scene.folder / "images", scene.copy("finished")
    shutil.copytree(_data(scene) / "train" / "3", data)
    output = scene.folder / "out.jsonl"
    flags = ("--input", str(data), "--output", str(output))
    prepare = functools.partial(change_in_prediction, change, data)
    if at_once:
        change(data)
        prepare = functools.partial(obey, change)
    settings = {"inference__batch_size": 1}
    ended = scene.run(workdir, *flags, mode="predict", prepare=prepare, **settings)
    outcome = judge(ended, says="without an answer|unreadable|cannot be|written to|images")
    answered = output.read_text().count('"label"') if output.exists() else 0
    wanted = PER_CLASS["train"] - 1
    if outcome.holds and ended.status == 0 and answered < wanted:
        return Outcome(FAILED, f"{answered} of {wanted} answers")
    return outcome


def slowly(scene: Scene, *, seconds: float, every: int) -> Outcome:
    """A training whose files come slowly ends as one whose files do not."""
    data, workdir = _data(scene), scene.folder / "run"
    prepare = functools.partial(slow, seconds, every)
    ended = run(_command(workdir, data), prepare=prepare)
    wanted = commands.metrics(_undisturbed(scene))
    return judge(ended, identical=lambda: commands.metrics(workdir) == wanted)


def hanging(scene: Scene, *, signals: tuple[int, ...], statuses: tuple[int, ...]) -> Outcome:
    """A training whose disk hangs is asked to stop; on one that does not it ends identical."""
    data, workdir = _data(scene), scene.folder / "run"
    begun = Begun(_command(workdir, data), prepare=functools.partial(hang, HANGS_AT))
    begun.until(lambda: bool(commands.metrics(workdir)))
    time.sleep(2.0)
    for number in signals:
        os.kill(begun.process.pid, number)
        time.sleep(0.5)
    ended = begun.end(seconds=STOPPING)
    if ended.status not in statuses or any(leak in ended.err for leak in LEAKS):
        return Outcome(FAILED, f"status {ended.status}: {ended.err[-600:]}")
    wanted = commands.metrics(_undisturbed(scene))
    return judge(
        run(_command(workdir, data)), identical=lambda: commands.metrics(workdir) == wanted
    )


def bad_and_good_again(scene: Scene) -> Outcome:
    """A training stops over a class that is missing, and ends identical once it is back."""
    data, workdir = _data(scene), scene.folder / "run"
    prepare = functools.partial(change_in_training, all_vanish, data)
    first = judge(run(_command(workdir, data), prepare=prepare), says="unreadable")
    if not first.holds:
        return first
    data.with_name("elsewhere").rename(data)
    wanted = commands.metrics(_undisturbed(scene))
    return judge(
        run(_command(workdir, data)), identical=lambda: commands.metrics(workdir) == wanted
    )


def changed_in_between(
    scene: Scene, *, change: Callable[[Path], None], says: str, goes_on: bool
) -> Outcome:
    """Between two parts of a training the data change; with the old ones back it ends identical."""
    data, workdir = _data(scene), scene.folder / "run"
    kept = Path(shutil.copytree(data, scene.folder / "kept"))
    prepare = functools.partial(signal_at, "avit_jax.training.loop:Run.advance", KILL, CHANGED_AT)
    killed = run(_command(workdir, data), prepare=prepare)
    change(data)
    first = judge(run(_command(workdir, data)), says=says)
    if killed.status != -KILL or not first.holds:
        return first if killed.status == -KILL else Outcome(FAILED, f"status {killed.status}")
    if (first.verdict == SAID) != goes_on:
        return Outcome(FAILED, f"{first.verdict}: {first.seen}")
    if goes_on:
        return first
    shutil.rmtree(data)
    kept.rename(data)
    wanted = commands.metrics(_undisturbed(scene))
    return both(
        judge(run(_command(workdir, data)), identical=lambda: commands.metrics(workdir) == wanted),
        first,
    )


def no_images(scene: Scene, *, mode: str) -> Outcome:
    """A folder has no image in it."""
    data, workdir = scene.folder / "data", scene.folder / "run"
    if mode == "predict":
        data.mkdir()
        flags = ("--input", str(data), "--output", str(scene.folder / "out.jsonl"))
        return judge(scene.run(scene.copy("finished"), *flags, mode=mode), says="no image")
    _data(scene)
    part = data / {"train": "train", "eval": "val"}[mode]
    for file in part.rglob("*.png"):
        file.unlink()
    return judge(run(_command(workdir, data)), says="no image|no files")


def workers_of_a_dead_run(scene: Scene) -> Outcome:
    """Processes that decode end with the training that is killed."""
    data, workdir = _data(scene), scene.folder / "run"
    process = commands.start(_command(workdir, data, data__workers=2))
    deadline = time.monotonic() + 240
    while not commands.metrics(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)
    below = _children(process.pid)
    process.kill()
    process.communicate()
    if not below:
        return Outcome(FAILED, "it had no workers")
    for _ in range(200):
        alive = [pid for pid in below if _is_alive(pid)]
        if not alive:
            return Outcome(IDENTICAL, f"{len(below)} processes have ended")
        time.sleep(0.05)
    return Outcome(FAILED, f"{len(alive)} of {len(below)} processes are still there")


def a_dead_worker(scene: Scene) -> Outcome:
    """A process that decodes is killed: one sentence, or another takes its place."""
    data, workdir = _data(scene), scene.folder / "run"
    process = commands.start(_command(workdir, data, data__workers=2))
    deadline = time.monotonic() + 240
    while not commands.metrics(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in _children(process.pid)[-1:]:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    wanted = commands.metrics(_undisturbed(scene))
    return judge(
        Ended(process.returncode, out, err, 0.0),
        says="worker|process",
        identical=lambda: commands.metrics(workdir) == wanted,
    )


def _children(pid: int) -> list[int]:
    """All processes below one, whichever of its threads has started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return found + [below for child in found for below in _children(child)]


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _faults() -> list[Fault]:
    found = []

    def add(name: str, fault: Callable[..., Outcome], **keywords: Any) -> None:
        found.append(Fault("readers", name, functools.partial(fault, **keywords)))

    for at_once, when in ((False, "in mid-run"), (True, "before it")):
        for name, change in ONE_BAD.items():
            add(
                f"training: an image {name} {when}",
                training,
                change=change,
                at_once=at_once,
                says="left out bad example|link|images",
            )
            add(f"prediction: an image {name} {when}", prediction, change=change, at_once=at_once)
    for name, change in TOO_MANY.items():
        add(f"training: {name}", training, change=change, at_once=False, says="unreadable")
    add("training: all vanish and come back", bad_and_good_again)
    add("training: each file takes 20 ms", slowly, seconds=0.02, every=1)
    add("training: one file in a hundred takes 3 s", slowly, seconds=3.0, every=100)
    for name, (change, says, goes_on) in CHANGED_BETWEEN.items():
        keywords = {"change": change, "says": says, "goes_on": goes_on}
        add(f"training goes on where {name}", changed_in_between, **keywords)
    for mode in ("train", "eval", "predict"):
        add(f"no images for {mode}", no_images, mode=mode)
    for name, signals, statuses in (
        ("TERM", (signal.SIGTERM,), (EXIT_PREEMPTED,)),
        ("Ctrl-C", (signal.SIGINT,), (EXIT_PREEMPTED,)),
        ("Ctrl-C twice", (signal.SIGINT, signal.SIGINT), (EXIT_INTERRUPTED, EXIT_PREEMPTED)),
    ):
        keywords = {"signals": signals, "statuses": statuses}
        add(f"training: the disk hangs, then {name}", hanging, **keywords)
    add("training killed with workers", workers_of_a_dead_run)
    add("training: a worker is killed", a_dead_worker)
    return found


FAULTS: tuple[Fault, ...] = tuple(_faults())
