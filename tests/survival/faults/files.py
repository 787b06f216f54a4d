"""Files of a workdir that are truncated, flipped, emptied, gone or exchanged; then every mode."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.survival import damages as d
from tests.survival.fault import Fault, Outcome
from tests.survival.outcome import contents, judge
from tests.survival.scene import NEWEST, STEPS, Scene

Damage = Callable[[Path], None]


def kept(workdir: Path) -> Callable[[], str | None]:
    """Whether all checkpoints that are there now are there later, or were trained past."""
    folder = workdir / "checkpoints"
    before = contents(folder) if folder.is_dir() else {}

    def lost() -> str | None:
        if (folder / str(STEPS) / "manifest.json").is_file():
            return None  # the run is done
        after = contents(folder).keys()
        gone = [name for content, name in before.items() if content not in after]
        return f"lost {gone[:3]}" if gone else None

    return lost


def then(scene: Scene, workdir: Path, mode: str, *, says: str, **settings) -> Outcome:
    """What a mode makes of a damaged workdir."""
    output = scene.folder / ("new.jsonl" if mode == "predict" else "new")
    new = mode in ("predict", "export", "visualize", "benchmark")
    flags = ("--output", str(output)) if new else ()
    if mode == "convert":
        flags = ("--input", str(workdir), "--output", str(scene.folder / "new.safetensors"))
    if mode == "visualize":
        flags = (*flags, "--limit", "4")
    lost = kept(workdir)
    ended = scene.run(workdir, *flags, mode=mode, **settings)
    identical = {
        "train": lambda: scene.is_identical(workdir),
        "eval": lambda: scene.evaluates_alike(workdir),
        "predict": lambda: scene.predicts_alike(output),
    }.get(mode, lambda: False)
    return judge(ended, identical=identical, says=says, kept=lost)


def damaged(
    scene: Scene, *, of: str, file: str, damage: Damage, mode: str, says: str | None, **settings
) -> Outcome:
    """Damage one file of a copy of a run, and start a mode."""
    workdir = scene.copy(of)
    damage(workdir / file)
    return then(scene, workdir, mode, says=says or Path(file).name.replace(".", r"\."), **settings)


def swapped(scene: Scene, *, of: str, file: str, source: str, mode: str, says: str) -> Outcome:
    """Put a file of another run, or another one of the same, in the place of one."""
    workdir = scene.copy(of)
    run, _, name = source.partition(":")
    d.exchanged(workdir / file, (workdir if run == "own" else getattr(scene.shared, run)) / name)
    return then(scene, workdir, mode, says=says)


def both_manifests(scene: Scene, *, of: str, mode: str) -> Outcome:
    """No checkpoint has its manifest any more."""
    workdir = scene.copy(of)
    for file in (workdir / "checkpoints").glob("*/manifest.json"):
        file.unlink()
    before = contents(workdir / "checkpoints")
    outcome = then(scene, workdir, mode, says="manifest.json")
    lost = before.keys() - contents(workdir / "checkpoints").keys()
    return Outcome("failed", f"{len(lost)} files of checkpoints are gone") if lost else outcome


JSON = {
    "truncated": d.truncated,
    "emptied": d.emptied,
    "zeroed": d.zeroed,
    "a folder": d.a_folder,
    "3": d.another_json(3),
    "a list": d.another_json([1]),
    "an empty object": d.another_json({}),
}
LINES = {
    "truncated": d.truncated,
    "last line gone": d.last_line_gone,
    "first line gone": d.first_line_gone,
    "last line twice": d.last_line_twice,
    "brace flipped": d.brace_flipped,
    "digit flipped": d.digit_flipped,
    "emptied": d.emptied,
    "zeroed": d.zeroed,
    "removed": d.removed,
    "a folder": d.a_folder,
}
INSIDE = ("manifest.json", "_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt")
CONFIGS = {
    "model a list": d.changed_json(model=[1]),
    "without train": d.changed_json(train=...),
    "without optim": d.changed_json(optim=...),
    "optim a number": d.changed_json(optim=3),
    "data a text": d.changed_json(data="digits"),
    "depth a text": d.changed_json(model__depth="two"),
    "steps a list": d.changed_json(train__steps=[1, 2]),
    "an unknown model": d.changed_json(model__name="nobody"),
    "depth null": d.changed_json(model__depth=None),
}


def _faults() -> Iterator[tuple[str, Callable[[Scene], Outcome]]]:
    def one(of: str, file: str, name: str, damage: Damage, mode: str, says=None, **settings):
        title = f"{mode} on {of}: {file} {name}" + (f" {settings}" if settings else "")
        keywords = {"of": of, "file": file, "damage": damage, "mode": mode, "says": says}
        return title, functools.partial(damaged, **keywords, **settings)

    for name, damage in LINES.items():
        yield one("interrupted", "metrics.jsonl", name, damage, "train")
        yield one("interrupted", "timings.jsonl", name, damage, "train")
    for name in ("truncated", "removed", "digit flipped", "last line gone"):
        yield one("finished", "metrics.jsonl", name, LINES[name], "train")
    for name, damage in (JSON | {"removed": d.removed}).items():
        yield one("interrupted", "config.json", name, damage, "train")
        yield one("interrupted", "description.json", name, damage, "train")
        yield one("interrupted", "run.json", name, damage, "train")
        yield one("finished", "config.json", name, damage, "eval")
        yield one("finished", "run.json", name, damage, "eval")
        yield one("finished", "description.json", name, damage, "predict")
        if name != "removed":
            yield one("interrupted", "skipped_steps.json", name, _made(damage), "train")
            yield one("finished", "plans.json", name, _made(damage), "predict")
    for name, value in {"[1.5]": [1.5], "[-1]": [-1], '["x"]': ["x"]}.items():
        damage = d.another_json(value)
        yield one("interrupted", "skipped_steps.json", name, damage, "train")
    for name, damage in CONFIGS.items():
        yield one("interrupted", "config.json", name, damage, "train", "config")
        yield one("finished", "config.json", name, damage, "eval", "config")
    inner = {"truncated": d.truncated, "flipped": d.flipped, "emptied": d.emptied}
    inner |= {"removed": d.removed, "a folder": d.a_folder}
    for name, damage in inner.items():
        for of, mode in (("interrupted", "train"), ("finished", "eval"), ("finished", "predict")):
            for file in INSIDE[:1] if mode == "predict" else INSIDE:
                place = f"checkpoints/{NEWEST[of]}/{file}"
                yield one(of, place, name, damage, mode, f"{NEWEST[of]}")
    for name, damage in {"removed": d.removed, "a file": d.a_file, "a folder": d.a_folder}.items():
        for of, mode in (("interrupted", "train"), ("finished", "eval"), ("finished", "predict")):
            yield one(of, f"checkpoints/{NEWEST[of]}", name, damage, mode, f"{NEWEST[of]}")
            yield one(of, "checkpoints", name, damage, mode, "checkpoint")
    for file in ("summary.json", "depth_maps.png", "eval.json"):
        mode = "eval" if file == "eval.json" else "train"
        yield one("interrupted", file, "a folder", d.a_folder, mode)
    yield one("interrupted", "tensorboard", "a file", d.a_file, "train", log__tensorboard=True)
    yield one("interrupted", ".lock", "a folder", d.a_folder, "train")
    for name, damage in (LINES | {"meta a folder": None}).items():
        file = "predictions.jsonl.meta.json" if damage is None else "predictions.jsonl"
        keywords = {"file": file, "damage": damage or d.a_folder}
        yield f"predict again: predictions {name}", functools.partial(again, **keywords)
    for name, damage in JSON.items():
        keywords = {"file": "predictions.jsonl.meta.json", "damage": damage}
        yield f"predict again: its meta {name}", functools.partial(again, **keywords)
    for of, mode in (("interrupted", "train"), ("finished", "eval"), ("finished", "predict")):
        newest, older = NEWEST[of], NEWEST[of] - 4
        strange = "another run|other run"
        for place, source, says in (
            (f"checkpoints/{newest}", "other:checkpoints/24", f"{strange}|number"),
            ("checkpoints/28", "other:checkpoints/24", f"{strange}|number"),
            (f"checkpoints/{newest}", f"own:checkpoints/{older}", "number"),
            ("checkpoints/28", f"own:checkpoints/{newest}", "number"),
            ("checkpoints", "other:checkpoints", strange),
            ("config.json", "other:config.json", "seed"),
            ("run.json", "other:run.json", strange),
        ):
            keywords = {"of": of, "file": place, "source": source, "mode": mode, "says": says}
            title = f"{mode} on {of}: {place} that of {source}"
            yield title, functools.partial(swapped, **keywords)
    keywords = {"of": "interrupted", "file": "metrics.jsonl", "source": "other:metrics.jsonl"}
    title = "train on interrupted: metrics.jsonl another run's"
    yield title, functools.partial(swapped, **keywords, mode="train", says=r"metrics\.jsonl")
    for of, mode in (("interrupted", "train"), ("finished", "train"), ("finished", "eval")):
        yield f"{mode} on {of}: no manifest", functools.partial(both_manifests, of=of, mode=mode)
    for mode in ("export", "visualize", "convert", "calibrate", "benchmark"):
        for file, name, damage in (
            (f"checkpoints/{STEPS}/manifest.json", "truncated", d.truncated),
            ("config.json", "emptied", d.emptied),
        ):
            says = "config" if file == "config.json" else str(STEPS)
            yield one("finished", file, name, damage, mode, says)
    no_average = d.changed_json(train__ema_decay=0.0)
    for mode in ("eval", "predict"):
        yield one("finished", "config.json", "without EMA", no_average, mode, "ema_decay")


def _made(damage: Damage) -> Damage:
    """The damage of a file that is made first."""

    def make(path: Path) -> None:
        if not path.exists():
            path.write_text(json.dumps([3]))
        damage(path)

    return make


def again(scene: Scene, *, file: str, damage: Damage) -> Outcome:
    """Finished predictions, one of whose files is damaged; then the same command."""
    workdir = scene.copy("finished")
    damage(workdir / file)
    ended = scene.run(workdir, mode="predict")
    same = lambda: scene.predicts_alike(workdir / "predictions.jsonl")  # noqa: E731
    return judge(ended, identical=same, says="predictions|a line of the output")


FAULTS: tuple[Fault, ...] = tuple(Fault("files", name, run) for name, run in _faults())
