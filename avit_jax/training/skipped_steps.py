"""Steps that a training leaves out because they were not finite, and when it has to give up."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import jax

from avit_jax.config.defaults import Train
from avit_jax.errors import UserError
from avit_jax.runtime.files import write_json_atomic
from avit_jax.training.step import NonFinite


class SkippedSteps:
    """The steps left out, counted from 0, as `skipped_steps.json` remembers them.

    Args:
        workdir: of the run.
        anew: forget what another config has left there.
    """

    def __init__(self, workdir: Path, *, anew: bool) -> None:
        self._file = workdir / "skipped_steps.json"
        self._steps = frozenset() if anew else _read(self._file)

    def __contains__(self, step: int) -> bool:
        """Whether `step` is left out."""
        return step in self._steps

    def steps(self) -> list[int]:
        """All of them, in order."""
        return sorted(self._steps)

    def include(self, known: Iterable[int]) -> None:
        """Leave out these as well, which a checkpoint knows of."""
        self._steps |= frozenset(known)

    def write(self) -> None:
        """Make the file hold these steps; without any there is no file."""
        if jax.process_index() != 0:
            return
        if self._steps:
            write_json_atomic(self._file, self.steps())
        else:
            self._file.unlink(missing_ok=True)

    def add(self, problem: NonFinite, settings: Train, *, saved: int | None) -> None:
        """Leave out the step of `problem` from now on.

        Args:
            problem: what happened.
            settings: say whether steps may be left out, and how many.
            saved: step of the newest checkpoint; `None` if there is none.

        Raises:
            UserError: the settings want the run to stop there, or allows no more rollbacks.
        """
        stops = settings.on_nonfinite == "stop"
        if not stops and len(self._steps) < settings.max_rollbacks:
            self._steps |= {problem.step}
            self.write()
            return
        done = "" if stops else f", after {len(self._steps)} rollbacks"
        kept = (
            "nothing is saved yet" if saved is None else f"the checkpoint of step {saved} is sound"
        )
        remedy = (
            "write --config.train.on_nonfinite rollback to go on without such steps"
            if stops
            else "raise --config.train.max_rollbacks to go on"
        )
        elsewhere = "" if saved is None else " in another --workdir"
        raise UserError(
            f"{problem}{done}; the run stopped and {kept}: {remedy}, or lower "
            f"--config.optim.learning_rate or set --config.optim.clip_norm{elsewhere}."
        )


def _read(file: Path) -> frozenset[int]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(found, list) or not all(type(step) is int and step >= 0 for step in found):
        raise _damaged(file, f"{found!r:.40} is no list of steps")
    return frozenset(found)


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} is damaged ({reason}): put a sound copy in its place, or remove it, and steps "
        "that are not finite are left out again when they come."
    )
