"""Images that vanish, change, are slow or no files at all, while a training or prediction reads."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avit_jax.data import digits
from tests import commands
from tests.survival.fault import IDENTICAL, Fault, NotHere, Outcome
from tests.survival.outcome import judge
from tests.survival.process import run
from tests.survival.scene import SETTINGS, Scene

PER_CLASS = {"train": 6, "val": 3}
CHANGED_AT = 9  # step behind which something happens to the data, when others were read
ADVANCE = "Run.advance"


def make_data(root: Path) -> None:
    """A folder of class folders with digits as PNG files."""
    arrays = digits.load()
    for label in range(10):
        of_class = np.flatnonzero(arrays["labels"] == label)
        for split, count in PER_CLASS.items():
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            taken, of_class = of_class[:count], of_class[count:]
            for index in taken:
                pixels = (arrays["images"][index] * 15).astype(np.uint8).repeat(4, 0).repeat(4, 1)
                Image.fromarray(pixels).save(folder / f"{index}.png")


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


def change_in_training(change: Callable[[Path], None], data: Path) -> None:
    """In the process of a command: something happens to the data behind a step."""
    from avit_jax.training.loop import Run

    advance, calls = Run.advance, [0]

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


def first_image(data: Path) -> Path:
    """One training image, or the last of a folder to predict, which comes late."""
    folder = data / "train" / "3"
    return sorted((folder if folder.exists() else data).glob("*.png"))[-1]


def vanish(data: Path) -> None:
    """A file is removed."""
    first_image(data).unlink()


def class_vanishes(data: Path) -> None:
    """A class folder is removed, with more images than may be bad."""
    shutil.rmtree(first_image(data).parent)


def all_vanish(data: Path) -> None:
    """The whole folder is renamed."""
    data.rename(data.with_name("elsewhere"))


def become_fifo(data: Path) -> None:
    """A file becomes a pipe that nobody writes into."""
    file = first_image(data)
    file.unlink()
    os.mkfifo(file)


def become_folder(data: Path) -> None:
    """A file becomes a folder."""
    file = first_image(data)
    file.unlink()
    file.mkdir()


def become_socket(data: Path) -> None:
    """A file becomes a socket."""
    file = first_image(data)
    file.unlink()
    place = os.getcwd()
    os.chdir(file.parent)  # whose names may be longer than those of sockets
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(file.name)
    os.chdir(place)


def link_to(target: str, data: Path) -> None:
    """A file becomes a link."""
    file = first_image(data)
    file.unlink()
    file.symlink_to(target)


def truncate(size: int, data: Path) -> None:
    """A file is cut."""
    os.truncate(first_image(data), size)


def become_text(data: Path) -> None:
    """A file holds something else."""
    first_image(data).write_text("<html>not found</html>")


def forbid(data: Path) -> None:
    """A file may not be read."""
    first_image(data).chmod(0)
    if os.access(first_image(data), os.R_OK):
        first_image(data).chmod(0o644)
        raise NotHere("the superuser reads what is forbidden")


ONE_BAD: dict[str, Callable[[Path], None]] = {
    "vanishes": vanish,
    "becomes a FIFO": become_fifo,
    "becomes a folder": become_folder,
    "becomes a socket": become_socket,
    "becomes a dangling link": functools.partial(link_to, "/nowhere/x.png"),
    "becomes a link to itself": functools.partial(link_to, "itself.png"),
    "becomes a link to a device": functools.partial(link_to, "/dev/zero"),
    "is truncated": functools.partial(truncate, 40),
    "is emptied": functools.partial(truncate, 0),
    "is a web page": become_text,
    "may not be read": forbid,
}
TOO_MANY: dict[str, Callable[[Path], None]] = {
    "a class vanishes": class_vanishes,
    "all vanish": all_vanish,
}


def training(scene: Scene, *, change: Callable[[Path], None], at_once: bool, says: str) -> Outcome:
    """A training whose data change behind a step, or before it begins."""
    data, workdir = _data(scene), scene.folder / "run"
    if at_once:
        change(data)
        return judge(run(_command(workdir, data)), says=says)
    if change is forbid:
        change(data)  # says whether this machine can
    prepare = functools.partial(change_in_training, change, data)
    return judge(run(_command(workdir, data), prepare=prepare), says=says)


def prediction(scene: Scene, *, change: Callable[[Path], None], at_once: bool) -> Outcome:
    """A prediction in which one image becomes bad: a line says why, and all others have answers."""
    data, workdir = scene.folder / "images", scene.copy("finished")
    shutil.copytree(_data(scene) / "train" / "3", data)
    output = scene.folder / "out.jsonl"
    flags = ("--input", str(data), "--output", str(output))
    prepare = None if at_once else functools.partial(change_in_prediction, change, data)
    if at_once or change is forbid:
        change(data)
    settings = {"inference__batch_size": 1}
    ended = scene.run(workdir, *flags, mode="predict", prepare=prepare, **settings)
    outcome = judge(ended, says="without an answer|unreadable|cannot be|written to|images")
    answered = output.read_text().count('"label"') if output.exists() else 0
    wanted = PER_CLASS["train"] - 1
    if outcome.holds and ended.status == 0 and answered < wanted:
        return Outcome("failed", f"{answered} of {wanted} answers")
    return outcome


def slowly(scene: Scene, *, seconds: float, every: int) -> Outcome:
    """A training whose files come slowly ends as one whose files do not."""
    data, workdir = _data(scene), scene.folder / "run"
    prepare = functools.partial(slow, seconds, every)
    ended = run(_command(workdir, data), prepare=prepare)
    wanted = commands.metrics(_undisturbed(scene))
    return judge(ended, identical=lambda: commands.metrics(workdir) == wanted)


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


def workers_of_a_dead_run(scene: Scene) -> Outcome:
    """Processes that decode end with the training that is killed."""
    data, workdir = _data(scene), scene.folder / "run"
    process = commands.start(_command(workdir, data, data__workers=2))
    deadline = time.monotonic() + 240
    while not commands.metrics(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)
    below = _children(process.pid)
    process.kill()
    process.wait()
    for _ in range(200):
        alive = [pid for pid in below if _is_alive(pid)]
        if not alive:
            return Outcome(IDENTICAL, f"{len(below)} processes have ended")
        time.sleep(0.05)
    return Outcome("failed", f"{len(alive)} of {len(below)} processes are still there")


def a_dead_worker(scene: Scene) -> Outcome:
    """A process that decodes is killed: one sentence, or another takes its place."""
    import signal

    data, workdir = _data(scene), scene.folder / "run"
    process = commands.start(_command(workdir, data, data__workers=2))
    deadline = time.monotonic() + 240
    while not commands.metrics(workdir) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in _children(process.pid)[-1:]:
        os.kill(pid, signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    from tests.survival.process import Ended

    wanted = commands.metrics(_undisturbed(scene))
    return judge(
        Ended(process.returncode, out, err, 0.0),
        says="worker|process",
        identical=lambda: commands.metrics(workdir) == wanted,
    )


def _children(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
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
    add("training killed with workers", workers_of_a_dead_run)
    add("training: a worker is killed", a_dead_worker)
    return found


FAULTS: tuple[Fault, ...] = tuple(_faults())
