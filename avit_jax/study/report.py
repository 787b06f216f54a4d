"""What a study leaves in its folder, written anew after each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from avit_jax.checkpoints.budgets import Budget
from avit_jax.checkpoints.operating_points import LEARNT
from avit_jax.runtime.files import write_json_atomic, write_text_atomic
from avit_jax.study import picture, tables
from avit_jax.study.design import Study
from avit_jax.study.results import STUDY
from avit_jax.study.summary import differences_of, settings_of, trainings_of

CELL_LINES, TABLE, PICTURE = "cells.csv", "table.md", "study.png"


class Written(NamedTuple):
    """The files, and what they say: see `summary.settings_of` and `differences_of`."""

    files: list[Path]
    settings: list[dict[str, Any]]
    differences: list[dict[str, Any]]


def write(
    workdir: Path,
    study: Study,
    budgets: Mapping[str, Budget],
    results: Sequence[Mapping[str, Any]],
    missing: Sequence[str],
) -> Written:
    """Write `study.json`, `cells.csv`, `table.md` and `study.png`; the last where there is any.

    Args:
        workdir: of the study.
        study: as its file describes it.
        budgets: of the study, by their names.
        results: of finished cells, in the order of the grid.
        missing: names of the other cells.
    """
    points = [LEARNT, *budgets]
    trainings = trainings_of(results, study.folds_together)
    settings = settings_of(trainings, points)
    baselines = {axis: str(label) for axis, label in study.baselines.items()}
    differences = differences_of(trainings, baselines, points)
    record = {
        "axes": {name: [one.label for one in options] for name, options in study.options.items()},
        "seeds": list(study.seeds),
        "folds": len(study.folds),
        "folds_in_turn": study.folds_in_turn,
        "budgets": list(budgets),
        "recipe": study.recipe({}).to_dict(),
        "missing": list(missing),
        "settings": settings,
        "differences": differences,
        "cells": [_without_answers(one) for one in results],
    }
    files = [workdir / name for name in (STUDY, TABLE)]
    write_json_atomic(files[0], record)
    status = status_of(len(results), len(missing), study.folds_together)
    write_text_atomic(files[1], tables.page(workdir.name, status, settings, differences))
    if results:
        files.append(workdir / CELL_LINES)
        write_text_atomic(files[-1], tables.cell_lines(results, points))
    if settings:
        files.append(picture.draw(settings, workdir / PICTURE))
    return Written(files, settings, differences)


def status_of(done: int, missing: int, folds: int) -> str:
    """One sentence about how far a study is."""
    total = done + missing
    if not missing:
        return f"All {total} cells finished."
    parts = f" A training counts once its {folds} folds have." if folds else ""
    return f"{done} of {total} cells finished, {missing} missing here.{parts}"


def _without_answers(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a cell without what is long and kept beside it: its config, its answers."""
    points = {
        name: {key: value for key, value in figures.items() if key != "right"}
        for name, figures in result["points"].items()
    }
    return {key: value for key, value in result.items() if key != "config"} | {"points": points}
