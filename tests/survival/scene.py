"""Runs that faults are injected into: prepared once, when first asked for, and copied each time."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training.optimization import Optimization
from tests import commands
from tests.survival import process
from tests.survival.process import Begun, Ended

STEPS, LAST_SAVED = 24, 20  # of the undisturbed run; of an interrupted one
NEWEST = {"interrupted": LAST_SAVED, "finished": STEPS}
# The program of a step is that of tests/test_resume.py, and so compiled once for both.
SETTINGS = {
    "train__steps": STEPS,
    "checkpoint__every": 0.05,  # 4 steps
    "eval__every": 1.0,  # behind the last step only
    "log__every": 3,
}


class Scenery:
    """What all faults share.

    Args:
        folder: for the prepared runs; those of an earlier call are used again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def finished(self) -> Path:
        """The workdir of an undisturbed run, evaluated, with predictions."""
        return self._prepared("finished", self._finish)

    @functools.cached_property
    def interrupted(self) -> Path:
        """The workdir of the same run, killed before its last save."""

        def interrupt(workdir: Path) -> None:
            prepare = functools.partial(kill_at_save, STEPS)
            ended = process.run(commands.command(workdir, **SETTINGS), prepare=prepare)
            assert ended.status == -signal.SIGKILL, ended.err

        return self._prepared("interrupted", interrupt)

    @functools.cached_property
    def other(self) -> Path:
        """The workdir of a finished run that differs in its seed."""
        return self._prepared("other", lambda workdir: _succeed("train", workdir, seed=1))

    @functools.cached_property
    def exported(self) -> Path:
        """A workdir with its run's export, `export/`."""

        def export(workdir: Path) -> None:
            shutil.copytree(self.finished, workdir)
            _succeed("export", workdir)

        return self._prepared("exported", export)

    @functools.cached_property
    def state(self) -> list[np.ndarray]:
        """The final state of the undisturbed run."""
        return final_state(self.finished)

    @functools.cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The log of the undisturbed run."""
        return commands.metrics(self.finished)

    def _finish(self, workdir: Path) -> None:
        for mode in ("train", "eval", "predict"):
            _succeed(mode, workdir)

    def _prepared(self, name: str, make: Callable[[Path], None]) -> Path:
        """`folder/name/run`, in full or not at all."""
        place = self.folder / name
        if not place.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=f".{name}", dir=self.folder))
            make(new / "run")
            new.rename(place)
        return place / "run"


class Scene:
    """One fault's own folder, and the commands that run in it.

    Attributes:
        shared: the prepared runs.
        folder: empty at first; gone when the fault has been judged.
    """

    def __init__(self, shared: Scenery, folder: Path) -> None:
        self.shared, self.folder = shared, folder

    def copy(self, name: str, *, to: str = "run") -> Path:
        """A copy of the prepared run `name` ("finished", "interrupted", "other", "exported").

        Returns:
            The workdir of the copy, `folder/to`.
        """
        return Path(shutil.copytree(getattr(self.shared, name), self.folder / to, symlinks=True))

    def command(self, workdir: Path, *flags: str, mode: str = "train", **settings: Any) -> list:
        """The command line that made the prepared runs, with other flags and settings."""
        return [*commands.command(workdir, mode=mode, **SETTINGS | settings), *flags]

    def run(
        self,
        workdir: Path,
        *flags: str,
        mode: str = "train",
        prepare: Callable[[], object] | None = None,
        **settings: Any,
    ) -> Ended:
        """Run it to its end."""
        return process.run(self.command(workdir, *flags, mode=mode, **settings), prepare=prepare)

    def begin(
        self,
        workdir: Path,
        *flags: str,
        mode: str = "train",
        prepare: Callable[[], object] | None = None,
        **settings: Any,
    ) -> Begun:
        """Begin it."""
        return Begun(self.command(workdir, *flags, mode=mode, **settings), prepare=prepare)

    def is_identical(self, workdir: Path) -> bool:
        """Whether a training has ended as the undisturbed one: state and log, to the bit."""
        if commands.metrics(workdir) != self.shared.metrics:
            return False
        found = final_state(workdir)
        return len(found) == len(self.shared.state) and all(
            np.array_equal(here, there, equal_nan=True)
            for here, there in zip(found, self.shared.state, strict=True)
        )

    def evaluates_alike(self, workdir: Path) -> bool:
        """Whether `eval.json` has the figures of the undisturbed run."""
        return _figures(workdir / "eval.json") == _figures(self.shared.finished / "eval.json")

    def predicts_alike(self, output: Path) -> bool:
        """Whether a file of predictions is that of the undisturbed run."""
        wanted = (self.shared.finished / "predictions.jsonl").read_bytes()
        return output.is_file() and output.read_bytes() == wanted


@contextlib.contextmanager
def scene(shared: Scenery) -> Iterator[Scene]:
    """A scene for one fault."""
    shared.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".fault", dir=shared.folder))
    try:
        yield Scene(shared, folder)
    finally:
        make_deletable(folder)
        shutil.rmtree(folder, ignore_errors=True)


def make_deletable(folder: Path) -> None:
    """Give back the modes that a fault has taken away."""
    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o755)


def kill_at_save(step: int) -> None:
    """In the process of a command: it is killed when it begins to save `step`."""
    save = Checkpoints.save

    def killed(self: Checkpoints, at: int, state: Any, **keywords: Any) -> None:
        if at == step:
            self.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, at, state, **keywords)

    Checkpoints.save = killed


def final_state(workdir: Path) -> list[np.ndarray]:
    """The leaves of the state behind the last step; empty where it was not saved."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    if STEPS not in checkpoints.steps():
        return []
    _, state = checkpoints.restore(target_of(workdir), step=STEPS)
    return [
        np.asarray(
            jax.random.key_data(leaf)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        )
        for leaf in jax.tree.leaves(state)
    ]


def target_of(workdir: Path) -> Any:
    """What the state of a run is restored to."""
    config = configs.from_json((workdir / "config.json").read_text())
    return _target(configs.to_json(config))


@functools.cache
def _target(text: str) -> Any:
    config = configs.from_json(text)
    optimization = Optimization(configs.Settings.of(config), configs.make_model(config), STEPS)
    return optimization.abstract_state(make_mesh(devices=jax.devices()[:1]))


def _succeed(mode: str, workdir: Path, **settings: Any) -> None:
    ended = process.run(commands.command(workdir, mode=mode, **SETTINGS | settings))
    assert ended.status == 0, ended.err


def _figures(file: Path) -> dict[str, Any]:
    """An evaluation without speeds and places, which are of the day and the machine."""
    said = json.loads(file.read_text())
    return {
        name: value
        for name, value in said.items()
        if "images_per_second" not in name and name not in ("weights", "summary")
    }
