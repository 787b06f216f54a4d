"""What a study finds in its folder: how far each cell is, and what finished ones came to."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.workdir import shortened
from avit_jax.errors import UserError
from avit_jax.runtime.locks import LOCK
from avit_jax.study.cells import Cell

CELLS = "cells"  # the folder of the cells' workdirs
RESULT = "cell.json"  # in a workdir: what the cell came to, written last
STUDY = "study.json"  # in the folder of a study
LOG = "log.txt"  # in a workdir: what the cell's processes have printed


class State(enum.StrEnum):
    """How far a cell is."""

    DONE = "done"
    TRAINED = "trained, to be measured"
    INTERRUPTED = "interrupted"
    MISSING = "missing"


def folder_of(workdir: Path, cell: Cell) -> Path:
    """The workdir of a cell."""
    return workdir / CELLS / cell.name


def asked_of(cell: Cell, budgets: Iterable[str]) -> dict[str, Any]:
    """What figures of a cell depend on, beside its training."""
    return {"calibration": cell.config.data.calibration_split, "budgets": sorted(budgets)}


def state_of(workdir: Path, cell: Cell, budgets: Iterable[str]) -> State:
    """How far a cell is.

    Raises:
        UserError: another study has trained it, or its result is damaged.
    """
    folder = folder_of(workdir, cell)
    if not (folder / "config.json").exists():
        return State.MISSING
    is_begun = bool(Checkpoints(folder / "checkpoints").steps())
    saved = configs.to_json(configs.read(folder / "config.json"))
    lines = configs.differences(cell.config, saved)
    changed = [lines[key] for key in lines.keys() - configs.changeable_keys(cell.config)]
    if changed:
        if not is_begun:
            return State.MISSING
        raise UserError(
            f"{workdir} holds cells of another study, for {cell.name} was trained with other "
            f"settings ({shortened(sorted(changed))}): write another --workdir, or the study as it "
            "was."
        )
    if not is_begun:
        return State.MISSING
    if not (folder / "summary.json").exists():
        return State.INTERRUPTED
    result = result_of(folder)
    stands = result is not None and _is_enough(result["asked"], asked_of(cell, budgets))
    return State.DONE if stands else State.TRAINED


def result_of(folder: Path) -> dict[str, Any] | None:
    """What a cell came to; `None` where it is not measured.

    Raises:
        UserError: its file is damaged.
    """
    file = folder / RESULT
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not found.keys() >= {"labels", "seed", "fold", "asked", "points", "training"}:
            raise ValueError("something is missing")
    except (AttributeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error}): delete it, and the cell is measured again."
        ) from error
    return found


def refuse_other_study(workdir: Path, axes: Sequence[str]) -> None:
    """Raises UserError where a folder holds what is no study, or one with other axes."""
    file = workdir / STUDY
    if not file.exists():
        there = sorted(one.name for one in workdir.iterdir()) if workdir.is_dir() else []
        strangers = [name for name in there if name not in (LOCK, CELLS)]
        if strangers:
            raise UserError(
                f"{workdir} holds {strangers[0]!r} and no study: write another --workdir."
            )
        return
    try:
        theirs = list(json.loads(file.read_text(encoding="utf-8"))["axes"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}): delete it; finished cells are kept in {CELLS}/."
        ) from error
    if theirs != list(axes):
        raise UserError(
            f"{workdir} holds another study, with the axes {', '.join(theirs)} instead of "
            f"{', '.join(axes)}: write another --workdir."
        )


def _is_enough(measured: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    same = measured["calibration"] == wanted["calibration"]
    return same and set(wanted["budgets"]) <= set(measured["budgets"])
