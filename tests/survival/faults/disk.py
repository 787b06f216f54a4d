"""Disks that are full or cannot be written, and places that go away while a command runs."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.survival import damages
from tests.survival.fault import Fault, NotHere, Outcome
from tests.survival.faults.files import kept
from tests.survival.outcome import both, judge
from tests.survival.scene import STEPS, Scene

MODES = ("eval", "predict", "export", "visualize", "convert")
NAMES = {
    "predict": "new.jsonl",
    "export": "new",
    "visualize": "new",
    "convert": "new.safetensors",
    "onnx": "new.onnx",
}


@contextlib.contextmanager
def small_disk(place: Path, *, kibibytes: int) -> Iterator[Path]:
    """A file system in memory of so many KiB at `place`."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(place)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        raise NotHere("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def files_at_most(size: int) -> None:
    """In the process of a command: no file may grow beyond so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def arguments(mode: str, workdir: Path, target: Path) -> tuple[str, ...]:
    """Flags of a mode that writes a new `target`."""
    flags: tuple[str, ...] = ("--output", str(target)) if mode in NAMES else ()
    flags += ("--limit", "4") if mode == "visualize" else ()
    return flags + (("--input", str(workdir)) if mode == "convert" else ())


def half(folder: Path) -> str | None:
    """A file or folder that was left half-written under a final name, or hidden."""
    left = [str(path.relative_to(folder)) for path in folder.iterdir()] if folder.exists() else []
    return f"left {left[:3]}" if left else None


def full_while_training(scene: Scene, *, kibibytes: int) -> Outcome:
    """The disk of the workdir fills up; with room again, the same command ends identical."""
    with small_disk(scene.folder / "disk", kibibytes=kibibytes) as disk:
        workdir = disk / "run"
        ended = scene.run(workdir)
        first = judge(ended, identical=lambda: False, says="no room|No space")
        moved = scene.folder / "run"
        shutil.copytree(workdir, moved)
    resumed = scene.run(moved)
    return both(first, judge(resumed, identical=lambda: scene.is_identical(moved)), first)


def full_while_resuming(scene: Scene, *, size: int) -> Outcome:
    """No file may grow beyond a limit; without it, the same command ends identical."""
    workdir = scene.copy("interrupted")
    lost = kept(workdir)
    ended = scene.run(workdir, prepare=functools.partial(files_at_most, size))
    if ended.status == 0:
        raise NotHere(f"nothing of this run is larger than {size} bytes")
    first = judge(ended, says="no room|too large", kept=lost)
    again = scene.run(workdir)
    return both(first, judge(again, identical=lambda: scene.is_identical(workdir)), first)


def full_output(scene: Scene, *, mode: str, size: int) -> Outcome:
    """What a mode writes has no room."""
    workdir, target = scene.copy("finished"), scene.folder / "out" / NAMES.get(mode, "x")
    target.parent.mkdir()
    flags = arguments(mode, workdir, target)
    prepare = functools.partial(files_at_most, size)
    ended = scene.run(workdir, *flags, mode=mode, prepare=prepare)
    if ended.status == 0:
        raise NotHere(f"nothing that --mode {mode} writes is larger than {size} bytes")
    whole = mode == "predict"  # whose lines are for the same command to go on behind
    left = (lambda: None) if whole else (lambda: half(target.parent))
    return judge(ended, says="no room|cannot be written", kept=left)


def read_only(scene: Scene, *, mode: str, damaged: bool) -> Outcome:
    """The workdir lies on a disk that can only be read; other modes write elsewhere."""
    with small_disk(scene.folder / "disk", kibibytes=20_000) as disk:
        workdir = Path(shutil.copytree(scene.shared.finished, disk / "run"))
        if damaged:
            damages.flipped(workdir / "checkpoints" / str(STEPS) / "state" / "_METADATA")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        target = scene.folder / "out" / NAMES.get(mode, "x")
        ended = scene.run(workdir, *arguments(mode, workdir, target), mode=mode)
        if mode in ("train", "eval", "calibrate"):
            return judge(ended, says="cannot be written|nothing can be written")
        good = (lambda: scene.predicts_alike(target)) if mode == "predict" else target.exists
        if damaged:
            return judge(ended, says=f"{STEPS}.*damaged")
        return judge(ended, identical=good)


def hold_at_save(step: int) -> None:
    """In the process of a command: it stands still when it begins to save `step`."""
    from avit_jax.checkpoints.store import Checkpoints

    save = Checkpoints.save

    def held(self, at, state, **keywords):
        if at == step:
            self.wait()
            os.kill(os.getpid(), signal.SIGSTOP)
        save(self, at, state, **keywords)

    Checkpoints.save = held


def hold_in_predict() -> None:
    """In the process of a command: it stands still behind its first lines."""
    from avit_jax.runtime.json_lines import JsonLines

    append = JsonLines.append

    def held(self, lines):
        append(self, lines)
        JsonLines.append = append
        os.kill(os.getpid(), signal.SIGSTOP)

    JsonLines.append = held


def is_held(pid: int) -> bool:
    """Whether a process stands still."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def in_mid_run(
    scene: Scene, *, file: str, damage: Callable[[Path], None], says: str, at: int = 12
) -> Outcome:
    """Something happens to a place of a training between two saves."""
    workdir = scene.folder / "run"
    run = scene.begin(workdir, prepare=functools.partial(hold_at_save, at))
    assert run.until(lambda: is_held(run.process.pid)), run.err()
    damage(workdir / file if file else workdir)
    os.kill(run.process.pid, signal.SIGCONT)
    return judge(run.end(), identical=lambda: scene.is_identical(workdir), says=says)


def output_in_mid_run(scene: Scene, *, damage: Callable[[Path], None]) -> Outcome:
    """Something happens to the output of a prediction while it runs."""
    workdir, output = scene.copy("finished"), scene.folder / "out" / "new.jsonl"
    flags = ("--output", str(output))
    run = scene.begin(workdir, *flags, mode="predict", prepare=hold_in_predict)
    assert run.until(lambda: is_held(run.process.pid)), run.err()
    damage(output)
    os.kill(run.process.pid, signal.SIGCONT)
    return judge(run.end(), says="was removed or renamed|was replaced|was emptied")


def renamed(path: Path) -> None:
    """It has another name."""
    path.rename(path.with_name(path.name + ".moved"))


def replaced(path: Path) -> None:
    """Another file has its name."""
    path.unlink()
    path.write_text("{}\n")


def folder_removed(path: Path) -> None:
    """The folder that it lies in is not there."""
    shutil.rmtree(path.parent)


def remains_of_an_export(scene: Scene) -> Outcome:
    """What a killed export has left is taken away by the next one."""
    workdir = scene.copy("finished")
    child = subprocess.Popen(["true"])
    child.wait()
    (workdir / f".export.new{child.pid}").mkdir()
    (workdir / f".export.new{child.pid}" / "model.stablehlo").write_text("half")
    ended = scene.run(workdir, mode="export")
    hidden = [path.name for path in workdir.glob(".export*")]
    return judge(
        ended,
        identical=(workdir / "export" / "export.json").exists,
        kept=lambda: f"left {hidden}" if hidden else None,
    )


def _faults() -> Iterator[tuple[str, Callable[[Scene], Outcome]]]:
    for kibibytes in (40, 150, 400, 600, 800):
        run = functools.partial(full_while_training, kibibytes=kibibytes)
        yield f"train on a disk of {kibibytes} KiB", run
    # What a command prints is a file here, too, and needs some room for the sentence.
    for size in (20_000, 60_000, 150_000, 300_000):
        yield f"train, files of {size} bytes", functools.partial(full_while_resuming, size=size)
    for mode in MODES:
        for size in (16_000, 30_000, 60_000):
            run = functools.partial(full_output, mode=mode, size=size)
            yield f"{mode}, files of {size} bytes", run
    for mode in ("train", *MODES):
        run = functools.partial(read_only, mode=mode, damaged=False)
        yield f"{mode} on a read-only workdir", run
    run = functools.partial(read_only, mode="predict", damaged=True)
    yield "predict on a read-only workdir with a damaged checkpoint", run
    for name, damage in {
        "removed": damages.removed,
        "renamed": renamed,
        "a file": damages.a_file,
    }.items():
        for file in ("", "checkpoints"):
            says = "run" if not file else "checkpoints|run"
            run = functools.partial(in_mid_run, file=file, damage=damage, says=says)
            yield f"{file or 'workdir'} {name} while training", run
    for name, damage in {
        "removed": damages.removed,
        "renamed": renamed,
        "replaced": replaced,
        "emptied": damages.emptied,
        "a folder": damages.a_folder,
    }.items():
        says = r"metrics\.jsonl"
        run = functools.partial(in_mid_run, file="metrics.jsonl", damage=damage, says=says)
        yield f"metrics.jsonl {name} while training", run
        yield f"output {name} while predicting", functools.partial(output_in_mid_run, damage=damage)
    run = functools.partial(output_in_mid_run, damage=folder_removed)
    yield "folder of the output removed while predicting", run
    yield "remains of a killed export", remains_of_an_export


FAULTS: tuple[Fault, ...] = tuple(Fault("disk", name, run) for name, run in _faults())
