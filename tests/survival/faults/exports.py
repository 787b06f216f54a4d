"""Exported folders of which a file is damaged; then whoever answers with them."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from avit_jax.data import digits
from tests import commands
from tests.survival import damages as d
from tests.survival.fault import FAILED, IDENTICAL, ONE_SENTENCE, Fault, Outcome
from tests.survival.outcome import LEAKS, LONGEST
from tests.survival.scene import Scene

COUNT = 6  # images that are asked about
ASK = """
import sys
import numpy as np
import avit_jax
from avit_jax.errors import UserError

try:
    found = avit_jax.load_run(sys.argv[1]).predict(list(np.load(sys.argv[2])))
except UserError as error:
    sys.exit(f"avit_jax: {error}")
print([(answer.label, round(answer.gmacs, 6)) for answer in found])
"""


def damaged(scene: Scene, *, file: str, damage: Callable[[Path], None], by: str) -> Outcome:
    """One file of an export is damaged; it is then loaded as a user does."""
    folder = Path(shutil.copytree(scene.shared.exported / "export", scene.folder / "export"))
    wanted = _ask(scene, folder, by)
    damage(folder / file)
    status, out, err = _ask(scene, folder, by)
    if wanted[0] != 0:
        return Outcome(FAILED, f"undisturbed: {wanted[2][-600:]}")
    if leak := next((leak for leak in LEAKS if leak in err), None):
        return Outcome(FAILED, f"{leak}: {err[-600:]}")
    if status == 0:
        return Outcome(IDENTICAL) if out == wanted[1] else Outcome(FAILED, f"other answers: {out}")
    said = err.strip().splitlines()[-1]
    if file not in said or len(said) > LONGEST:
        return Outcome(FAILED, f"no word of {file}, or too many: {said}")
    return Outcome(ONE_SENTENCE, said)


def _ask(scene: Scene, folder: Path, by: str) -> tuple[int, str, str]:
    images = scene.folder / "images.npy"
    config = json.loads((scene.shared.exported / "export" / "export.json").read_text())
    side = config["preprocessing"]["input"]["shape"][1]
    pixels = (digits.load()["images"][:COUNT] * 15).astype(np.uint8)
    repeats = side // pixels.shape[1]
    large = pixels.repeat(repeats, 1).repeat(repeats, 2)
    np.save(images, np.repeat(large[..., None], 3, -1))
    if by == "load.py":
        return commands.run_script(folder / "load.py", str(images))
    script = scene.folder / "ask.py"
    script.write_text(ASK)
    return commands.run_script(script, str(folder), str(images))


DAMAGES = {
    "truncated": d.truncated,
    "flipped": d.flipped,
    "emptied": d.emptied,
    "zeroed": d.zeroed,
    "removed": d.removed,
    "a folder": d.a_folder,
}
JSON = {
    "a list": d.another_json([1]),
    "an empty object": d.another_json({}),
    "without preprocessing": d.changed_json(preprocessing=...),
    "without labels": d.changed_json(labels=...),
}


def _faults() -> Iterator[tuple[str, Callable[[Scene], Outcome]]]:
    readers = {
        "load.py": ("export.json", "model.stablehlo", "weights.npz"),
        "load_run": ("export.json", "weights.npz"),
    }
    for by, files in readers.items():
        for file in files:
            for name, damage in (DAMAGES | (JSON if file == "export.json" else {})).items():
                if (file, name) == ("export.json", "flipped"):
                    damage = d.brace_flipped
                keywords = {"file": file, "damage": damage, "by": by}
                yield f"{by}: {file} {name}", functools.partial(damaged, **keywords)


FAULTS: tuple[Fault, ...] = tuple(Fault("exports", name, run) for name, run in _faults())
