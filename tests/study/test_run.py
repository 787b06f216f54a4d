"""A whole study of two tiny cells, in this process instead of one for each cell."""

import csv
import json
import shutil
import types
from pathlib import Path

import pytest

from avit_jax.errors import EXIT_PREEMPTED, Preempted, UserError
from avit_jax.runtime.locks import only_writer
from avit_jax.study import Study, cell_process, run
from avit_jax.study.processes import Ended
from avit_jax.study.results import State
from tests.commands import TINY

STUDY = Study(
    config="avit_digits",
    settings=TINY,
    axes={"method.prior": ("gaussian", "laplace")},
    budgets=(0.6,),
    baselines={"method.prior": "gaussian"},
).debug()
NAMES = ["prior=gaussian,seed=0", "prior=laplace,seed=0"]


class Here:
    """Stands in for processes: cells run in this one, or end with a status at once.

    The first is trained; others take over what it came to, for training takes seconds.
    """

    def __init__(self, statuses: dict[str, int]):
        self.statuses, self.asked = statuses, []

    def __call__(self, tasks, places, stop):
        for task in tasks:
            name, log = task["cell"]["name"], Path(task["workdir"], "log.txt")
            self.asked.append(name)
            status = self.statuses.get(name, 0)
            if status == 0:
                self.work(json.loads(json.dumps(task)))
            yield Ended(name, status, log)

    def work(self, task) -> None:
        workdir = Path(task["workdir"])
        trained = workdir.parent / NAMES[0]
        if not (trained / "cell.json").exists():
            cell_process.run(task, lambda step: False)
            return
        shutil.copytree(trained, workdir)
        result = json.loads((trained / "cell.json").read_text())
        result |= task["cell"] | {"config": task["config"]}
        (workdir / "cell.json").write_text(json.dumps(result))
        (workdir / "config.json").write_text(json.dumps(task["config"]))


def study_in(workdir: Path, monkeypatch, study: Study = STUDY, **statuses: int):
    here = Here({f"prior={name},seed=0": status for name, status in statuses.items()})
    monkeypatch.setattr(run, "side_by_side", here)
    try:
        failed = run.run(study, workdir, [{}], lambda: False)
    except Preempted as stopped:
        return types.SimpleNamespace(asked=here.asked, stopped=str(stopped))
    return types.SimpleNamespace(asked=here.asked, failed=failed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where one of two cells is finished and the other has failed."""
    workdir = tmp_path_factory.mktemp("study") / "priors"
    with pytest.MonkeyPatch.context() as patch:
        found = study_in(workdir, patch, laplace=-9)
        assert found.asked == NAMES
        assert found.failed == {NAMES[1]: "it printed nothing"}
    return workdir


def states(workdir: Path, study: Study = STUDY) -> list[State]:
    return list(run.Grid.of(study, workdir).states.values())


def test_tables_say_what_is_missing_then_a_second_start_trains_that_alone(folder, monkeypatch):
    assert "1 of 2 cells finished, 1 missing here." in (folder / "table.md").read_text()
    assert states(folder) == [State.DONE, State.MISSING]
    listed = run.listing(run.Grid.of(STUDY, folder), jobs=1)
    assert "1 to come, about" in listed and f"done                    {NAMES[0]}" in listed

    assert study_in(folder, monkeypatch).asked == NAMES[1:]
    table = (folder / "table.md").read_text()
    assert "All 2 cells finished." in table and "laplace - gaussian" in table
    assert states(folder) == [State.DONE] * 2
    assert study_in(folder, monkeypatch).asked == []

    record = json.loads((folder / "study.json").read_text())
    assert [cell["name"] for cell in record["cells"]] == NAMES and record["missing"] == []
    assert {one["point"] for one in record["settings"]} >= {"learnt"}
    with (folder / "cells.csv").open() as lines:
        first, second = csv.DictReader(lines)
    result = json.loads((folder / "cells" / NAMES[0] / "cell.json").read_text())
    summary = json.loads((folder / "cells" / NAMES[0] / "summary.json").read_text())
    assert first["cell"] == NAMES[0] and second["method.prior"] == "laplace"
    learnt = result["points"]["learnt"]
    assert float(first["top1"]) == learnt["top1"] == pytest.approx(summary["top1"])
    assert learnt["gmacs"] == pytest.approx(summary["gmacs"], rel=1e-5)
    assert learnt["mean_depth"] == pytest.approx(summary["mean_depth"], rel=1e-5)
    assert learnt["cross_entropy"] == pytest.approx(summary["cross_entropy"], rel=1e-5)
    assert learnt["right"].count("1") == round(510 * summary["top1"]) and learnt["images"] == 510
    assert {"loss", "task_loss", "prior_penalty", "steps"} <= result["training"].keys()
    assert (folder / "study.png").stat().st_size > 1000


def test_another_seed_and_another_budget_go_on_with_what_is_there(folder):
    more = STUDY.__class__(**(vars(STUDY) | {"seeds": (0, 1), "budgets": (0.6, 0.7)}))
    found = run.Grid.of(more, folder).states
    assert found[NAMES[0]] is State.TRAINED
    assert found["prior=gaussian,seed=1"] is State.MISSING


def test_finished_cells_that_a_changed_study_has_no_more_are_said(folder):
    changed = STUDY.__class__(**(vars(STUDY) | {"seeds": (1,)}))
    listed = run.listing(run.Grid.of(changed, folder), jobs=1)
    assert "finished cells are not in it any more and in no table (prior=gaussian,seed=0" in listed


def test_a_stopped_study_says_how_to_go_on(folder, monkeypatch, tmp_path):
    found = study_in(tmp_path / "new", monkeypatch, gaussian=EXIT_PREEMPTED, laplace=EXIT_PREEMPTED)
    assert found.stopped == "stopped with 0 of 2 cells finished"


def test_two_studies_in_one_folder_are_kept_apart(folder, monkeypatch):
    with only_writer(folder, "study"), pytest.raises(UserError, match="written by another run"):
        study_in(folder, monkeypatch)


def test_data_that_are_not_there_are_said_before_any_training(tmp_path):
    folds = ({"data.eval_split": "forms 1-3"}, {"data.eval_split": "forms 15"})
    wrong = STUDY.__class__(**(vars(STUDY) | {"folds": folds}))
    with pytest.raises(UserError, match="cell prior=gaussian,seed=0,fold=1: the digits have forms"):
        run.Grid.of(wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_counts_rounds_of_cells_side_by_side():
    assert run.estimate([60.0, 120.0], 5, 2) == "5 to come, about 4.5 minutes by the 2 finished"
    assert run.estimate([6000.0] * 3, 7, 1) == "7 to come, about 700 minutes by the 3 finished"
    assert "none is finished" in run.estimate([], 5, 2)
    assert run.estimate([60.0], 0, 2) == "all are finished"
