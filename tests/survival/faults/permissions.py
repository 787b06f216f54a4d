"""Files and folders that the user may not read or write; then every mode, which obeys modes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.survival import superuser
from tests.survival.fault import Fault, Outcome
from tests.survival.faults.files import kept
from tests.survival.outcome import both, judge
from tests.survival.scene import NEWEST, Scene, make_deletable

SAYS = "denied|not be read|not be written|may not|not readable|cannot be used"


def forbidden(scene: Scene, *, of: str, place: str, bits: int, mode: str) -> Outcome:
    """One place of a run has other bits; with the old ones back, the run ends identical."""
    superuser.require()
    workdir = scene.copy(of)
    file = workdir / place
    before = os.stat(file).st_mode
    os.chmod(file, bits)
    output = scene.folder / ("new.jsonl" if mode == "predict" else "new")
    own = ("--output", str(output)) if mode in ("export", "visualize") else ()
    if mode == "convert":
        own = ("--input", str(workdir), "--output", str(scene.folder / "new.safetensors"))
    ended = scene.run(workdir, *own, mode=mode, prepare=superuser.obey_modes)
    os.chmod(file, before)
    lost = kept(workdir)
    identical: dict[str, Callable[[], bool]] = {
        "train": lambda: scene.is_identical(workdir),
        "eval": lambda: scene.evaluates_alike(workdir),
        "predict": lambda: scene.predicts_alike(workdir / "predictions.jsonl"),
    }
    first = judge(ended, identical=identical.get(mode, lambda: False), says=SAYS, kept=lost)
    again = scene.run(workdir)
    return both(first, judge(again, identical=lambda: scene.is_identical(workdir)), first)


def closed_folder(scene: Scene, *, mode: str) -> Outcome:
    """What a mode writes has no place: the folder of its output may not be written in."""
    superuser.require()
    workdir, closed = scene.copy("finished"), scene.folder / "closed"
    closed.mkdir(mode=0o555)
    names = {"predict": "new.jsonl", "convert": "new.safetensors"}
    flags = ("--output", str(closed / names.get(mode, "new")))
    flags += ("--input", str(workdir)) if mode == "convert" else ()
    ended = scene.run(workdir, *flags, mode=mode, prepare=superuser.obey_modes)
    make_deletable(closed)
    return judge(
        ended, says=SAYS, kept=lambda: f"left {found}" if (found := left(closed)) else None
    )


def left(folder: Path) -> list[str]:
    """Names of what is in a folder."""
    return sorted(os.listdir(folder))


FILES = ("config.json", "run.json", "description.json", "metrics.jsonl", "timings.jsonl")
PARTS = ("", "/manifest.json", "/state")  # of a checkpoint


def _faults() -> Iterator[tuple[str, Callable[[Scene], Outcome]]]:
    def one(of: str, place: str, bits: int, mode: str):
        keywords = {"of": of, "place": place, "bits": bits, "mode": mode}
        title = f"{mode} on {of}: {place} {bits:04o}"
        return title, functools.partial(forbidden, **keywords)

    for file in FILES:
        for bits in (0o000, 0o444):
            yield one("interrupted", file, bits, "train")
    for file in (".", "checkpoints"):
        for bits in (0o000, 0o555):
            yield one("interrupted", file, bits, "train")
    for part in PARTS:
        yield one("interrupted", f"checkpoints/{NEWEST['interrupted']}{part}", 0o000, "train")
    for mode in ("eval", "predict"):
        for file in ("config.json", "run.json", "description.json", "checkpoints"):
            yield one("finished", file, 0o000, mode)
        for part in PARTS:
            yield one("finished", f"checkpoints/{NEWEST['finished']}{part}", 0o000, mode)
    yield one("finished", "eval.json", 0o000, "eval")
    yield one("finished", "predictions.jsonl", 0o000, "predict")
    yield one("finished", "predictions.jsonl.meta.json", 0o000, "predict")
    for mode in ("export", "visualize", "convert"):
        yield one("finished", "config.json", 0o000, mode)
        yield one("finished", "checkpoints", 0o000, mode)
    for mode in ("export", "visualize", "convert", "predict"):
        yield f"{mode} into a closed folder", functools.partial(closed_folder, mode=mode)


FAULTS: tuple[Fault, ...] = tuple(Fault("permissions", name, run) for name, run in _faults())
