"""Settings out of range and config files that are none: refused before anything starts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from tests import commands
from tests.survival import process
from tests.survival.fault import FAILED, Fault, Outcome
from tests.survival.outcome import both, judge
from tests.survival.scene import Scene

RANGES = {
    "train.steps": ("1e11", "100000000000", "0", "-1"),
    "train.epochs": ("1e30", "inf", "nan", "0"),
    "train.batch_size": ("0", "100000000"),
    "log.every": ("100000000000", "0"),
    "model.mlp_ratio": ("nan", "0", "-1", "inf", "0.001"),
    "model.depth": ("1000000", "0"),
    "model.image_size": ("65536", "0"),
    "data.workers": ("-1", "1000000"),
    "data.augment.rotation": ("inf", "nan", "-1"),
    "data.augment.shift": ("inf", "nan", "1e9"),
    "inference.row_sizes": ("('a',)", "(0,)", "(1.5,)"),
    "inference.images": ("0", "-3"),
    "eval.batch_size": ("1000000", "0"),
    "method.target_depth": ("-1", "0", "100", "nan"),
}
FILES = {
    "returns None": "def get_config():\n    return None\n",
    "returns 3": "def get_config():\n    return 3\n",
    "fails to import": "import no_such_module\n",
    "no get_config": "x = 1\n",
    "empty": "",
    "a syntax error": "def get_config(:\n",
    "without sections": (
        "from ml_collections import ConfigDict\n\n\n"
        'def get_config():\n    return ConfigDict({"a": 1})\n'
    ),
}


def _refused(scene: Scene, arguments: list[str], says: str) -> Outcome:
    ended = process.run(arguments)
    left = [path.name for path in (scene.folder / "run").glob("*")]
    outcome = judge(ended, says=says)
    return both(outcome, Outcome(FAILED, f"left {left}") if left else outcome)


def out_of_range(scene: Scene, *, key: str, value: str) -> Outcome:
    """One setting of a training is out of range."""
    arguments = commands.command(scene.folder / "run")
    kept = [one for one in arguments if not one.startswith(f"--config.{key}=")]
    says = key.rpartition(".")[2]
    return _refused(scene, [*kept, f"--config.{key}={value}"], says)


def no_config(scene: Scene, *, text: str) -> Outcome:
    """A config file is none."""
    file = scene.folder / "mine.py"
    file.write_text(text)
    arguments = ["python", "-m", "avit_jax.main", "--config", str(file)]
    return _refused(scene, [*arguments, "--workdir", str(scene.folder / "run")], r"mine\.py")


def empty_workdir(scene: Scene) -> Outcome:
    """`--workdir ""` names no folder."""
    return _refused(scene, [*commands.command(Path())[:5], "--workdir", ""], "--workdir is empty")


def _faults() -> Iterator[Fault]:
    for key, values in RANGES.items():
        for value in values:
            run = functools.partial(out_of_range, key=key, value=value)
            yield Fault("settings", f"{key} {value}", run)
    for name, text in FILES.items():
        run = functools.partial(no_config, text=text)
        yield Fault("settings", f"config file {name}", run)
    yield Fault("settings", "empty workdir", empty_workdir)


FAULTS: tuple[Fault, ...] = tuple(_faults())
