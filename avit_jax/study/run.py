"""A study from its file to its tables: what is missing is trained, what is there is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avit_jax.checkpoints.budgets import Budget
from avit_jax.checkpoints.operating_points import LEARNT
from avit_jax.checkpoints.workdir import shortened
from avit_jax.errors import EXIT_PREEMPTED, Preempted, UserError
from avit_jax.experiment import Experiment
from avit_jax.runtime.locks import only_writer
from avit_jax.runtime.tables import columns
from avit_jax.study import report, tables
from avit_jax.study.cell_process import task_of
from avit_jax.study.cells import Cell
from avit_jax.study.design import Study
from avit_jax.study.places import Place
from avit_jax.study.processes import last_words, side_by_side
from avit_jax.study.results import (
    CELLS,
    RESULT,
    State,
    folder_of,
    refuse_other_study,
    result_of,
    state_of,
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """All cells of a study in a folder, and how far each was when it was looked at.

    Attributes:
        workdir: of the study.
        study: as its file describes it.
        budgets: by their names.
        cells: in the order of the grid.
        states: by the names of the cells.
    """

    workdir: Path
    study: Study
    budgets: Mapping[str, Budget]
    cells: Sequence[Cell]
    states: Mapping[str, State]

    @classmethod
    def of(cls, study: Study, workdir: Path) -> Grid:
        """Every cell's config and model is made, and every folder looked into; nothing is written.

        Raises:
            UserError: a key, value or budget that cannot be, or another study in the folder.
        """
        budgets, cells = study.budgets_in_gmacs(), study.cells()
        _refuse_missing_data(cells)
        refuse_other_study(workdir, list(study.axes))
        states = {cell.name: state_of(workdir, cell, budgets) for cell in cells}
        return cls(workdir, study, budgets, cells, states)

    @property
    def waiting(self) -> list[Cell]:
        """What is still to be done; cells that were begun come first."""
        begun = (State.TRAINED, State.INTERRUPTED)
        left = [cell for cell in self.cells if self.states[cell.name] is not State.DONE]
        return sorted(left, key=lambda cell: self.states[cell.name] not in begun)

    @property
    def left_over(self) -> list[str]:
        """Finished cells in the folder that the study has no more."""
        found = sorted(file.parent.name for file in (self.workdir / CELLS).glob(f"*/{RESULT}"))
        return [name for name in found if name not in self.states]

    def results(self, names: set[str]) -> list[dict[str, Any]]:
        """Results of the cells with these names, in the order of the grid."""
        chosen = [cell for cell in self.cells if cell.name in names]
        return [result_of(folder_of(self.workdir, cell)) for cell in chosen]


def listing(grid: Grid, jobs: int) -> str:
    """All cells with their states, and how long the missing ones may take."""
    lines = [f"{state:<24}{name}" for name, state in grid.states.items()]
    done = {name for name, state in grid.states.items() if state is State.DONE}
    seconds = [one["seconds"] for one in grid.results(done)]
    lines += [_words_about(grid.left_over)] if grid.left_over else []
    return "\n".join([*lines, estimate(seconds, len(grid.waiting), jobs)])


def estimate(seconds: Sequence[float], waiting: int, jobs: int) -> str:
    """How long cells may take, by those that are finished.

    Args:
        seconds: that each finished one took.
        waiting: those to come.
        jobs: at a time.
    """
    if not waiting:
        return "all are finished"
    if not seconds:
        return f"{waiting} to come; none is finished that tells how long they take"
    rounds = -(-waiting // jobs)
    minutes = rounds * sum(seconds) / len(seconds) / 60
    shown = f"{minutes:.2g}" if minutes < 10 else f"{minutes:.0f}"
    return f"{waiting} to come, about {shown} minutes by the {len(seconds)} finished"


def run(
    study: Study, workdir: Path, places: list[Place], stop: Callable[[], bool]
) -> dict[str, str]:
    """Train and measure what is missing, and write tables and picture, anew after each cell.

    Args:
        study: as its file describes it.
        workdir: of the study.
        places: of the cells that run at a time, from `places.places`.
        stop: whether to save and end.

    Returns:
        What the cells that failed said last, by their names.

    Raises:
        UserError: see `Grid.of`, or another process works on the study.
        Preempted: `stop` said so, or a cell was asked to end; all is saved.
    """
    Grid.of(study, workdir)  # what cannot be is said before a folder is made
    with only_writer(workdir, "study"):
        grid = Grid.of(study, workdir)
        done = {name for name, state in grid.states.items() if state is State.DONE}
        written = _write(grid, done)
        if grid.left_over:
            print(_words_about(grid.left_over))
        if grid.waiting:
            print(f"{len(done)} of {len(grid.cells)} cells finished, {len(places)} at a time")
        failed, stopped = {}, []
        tasks = (task_of(workdir, cell, grid.budgets) for cell in grid.waiting)
        for ended in side_by_side(tasks, places, stop):
            if ended.status == 0:
                done.add(ended.name)
                written = _write(grid, done)
                print(_line(grid, ended.name, done, len(places)), flush=True)
            elif ended.status == EXIT_PREEMPTED or stop():  # SIGTERM may come before it listens
                stopped.append(ended.name)
            else:
                failed[ended.name] = last_words(ended.log)
                print(
                    f"FAILED, status {ended.status}: {ended.name}: {failed[ended.name]} "
                    f"({ended.log})",
                    flush=True,
                )
    if stopped or stop():
        raise Preempted(f"stopped with {len(done)} of {len(grid.cells)} cells finished")
    if written.settings:
        print(f"\n{columns(*tables.last_words(written.settings, written.differences))}\n")
    print(f"written: {', '.join(map(str, written.files))}")
    return failed


def _words_about(left_over: Sequence[str]) -> str:
    return (
        f"the study was changed: {len(left_over)} finished cells are not in it any more and in no "
        f"table ({shortened(left_over)})"
    )


def _refuse_missing_data(cells: Sequence[Cell]) -> None:
    """Raises UserError where images of a cell are not there, or are of other classes."""
    opened = set()
    for cell in cells:
        said = (cell.config.data.to_json_best_effort(), cell.config.model.num_classes)
        if said not in opened:
            opened.add(said)
            experiment = Experiment(cell.config, Path())
            try:
                _ = experiment.train_source, experiment.eval_source
            except UserError as error:
                raise UserError(f"cell {cell.name}: {error}") from error


def _line(grid: Grid, name: str, done: set[str], jobs: int) -> str:
    (result,) = grid.results({name})
    learnt = result["points"][LEARNT]
    seconds = [one["seconds"] for one in grid.results(done)]
    return (
        f"[{len(done)}/{len(grid.cells)}] {name}: top-1 {learnt['top1']:.2%} at "
        f"{learnt['gmacs']:.4g} GMACs, {result['seconds']:.0f} s; "
        f"{estimate(seconds, len(grid.cells) - len(done), jobs)}"
    )


def _write(grid: Grid, done: set[str]) -> report.Written:
    missing = [cell.name for cell in grid.cells if cell.name not in done]
    return report.write(grid.workdir, grid.study, grid.budgets, grid.results(done), missing)
