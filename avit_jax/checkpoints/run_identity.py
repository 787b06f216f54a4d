"""Which run a workdir is of, so that nothing of another run is taken for its own.

`run.json` is written when a run begins. Its number stands in every checkpoint of the run; beside it
stands the step that was saved last, so that a checkpoint which has gone is missed.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import jax
from etils import epath

from avit_jax.checkpoints import manifest
from avit_jax.errors import UserError
from avit_jax.runtime.files import write_json_atomic

FILE = "run.json"
NUMBER = "run"  # its key there, and in what a checkpoint holds beside the state


@dataclasses.dataclass(frozen=True)
class RunIdentity:
    """What tells a run from all others.

    Attributes:
        file: that holds it.
        number: a random one, as text. Process 0 alone compares and writes it.
        saved: the step of the checkpoint that was written last, if any was.
    """

    file: Path
    number: str
    saved: int | None = None

    def write(self) -> None:
        """Write it down; from then on the workdir is this run's."""
        if jax.process_index() == 0:
            write_json_atomic(self.file, {NUMBER: self.number, "saved": self.saved})

    def remember(self, step: int) -> None:
        """Write down that the checkpoint of `step` is complete."""
        dataclasses.replace(self, saved=step).write()


def read(workdir: Path) -> RunIdentity | None:
    """The identity of the run in `workdir`; `None` where it is older than these files.

    Raises:
        UserError: the file is damaged.
    """
    file = workdir / FILE
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        number, saved = said[NUMBER], said["saved"]
        if not isinstance(number, str) or not isinstance(saved, int | None):
            raise TypeError("no text and number")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}): put a sound copy in its place, or remove it, and the "
            "checkpoints will say which run it is."
        ) from error
    return RunIdentity(file, number, saved)


def begin(workdir: Path, saved: Sequence[int]) -> RunIdentity:
    """The identity of the run that goes on, or is to begin, in `workdir`; nothing is written.

    Args:
        workdir: of the run.
        saved: steps of its checkpoints; where `run.json` is gone or older, they say whose they are.

    Raises:
        UserError: the file is damaged, or is gone and the checkpoints are of several runs.
    """
    known = read(workdir)
    if known is not None:
        return known
    numbers = {_number(epath.Path(workdir) / "checkpoints" / str(step)) for step in saved} - {None}
    if len(numbers) > 1:
        raise UserError(
            f"{workdir / FILE} is gone and the checkpoints beside it are of {len(numbers)} runs: "
            "bring it back, or take away those of other runs."
        )
    return RunIdentity(workdir / FILE, next(iter(numbers), None) or uuid.uuid4().hex)


def _number(checkpoint: epath.Path) -> str | None:
    try:
        return manifest.read(checkpoint)["extra"].get(NUMBER)
    except (OSError, ValueError):  # damaged, which is said where it is to be used
        return None


def refuse_stranger(checkpoint: epath.Path, run: RunIdentity | None) -> None:
    """Refuse a sound checkpoint that has the place of another one.

    Args:
        checkpoint: its folder, named after its step.
        run: whose it is to be; `None` takes any, and so do checkpoints older than identities.

    Raises:
        UserError: it is of another step than its name says, or of another run.
    """
    found = manifest.read(checkpoint)
    if found["step"] != int(checkpoint.name):
        raise UserError(
            f"{checkpoint} holds the checkpoint of step {found['step']} under another number: give "
            f"it the name {found['step']}, or take it away."
        )
    number = found["extra"].get(NUMBER)
    if run is not None and number and number != run.number:
        raise UserError(
            f"{checkpoint} is a checkpoint of another run than {run.file} names: take it away, and "
            "the one before it will be used, or write the --workdir that it is from."
        )
