"""What a study finds in its folder."""

import json

import pytest

from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.study.cells import Cell
from avit_jax.study.results import State, asked_of, folder_of, refuse_other_study, state_of
from tests import tiny_runs


@pytest.fixture
def cell(tmp_path) -> Cell:
    """One that has come to its first checkpoint."""
    config = tiny_runs.config_of()
    found = Cell("prior=gaussian,seed=0", {"method.prior": "gaussian"}, 0, None, config)
    folder = folder_of(tmp_path, found)
    folder.mkdir(parents=True)
    tiny_runs.trained(folder, config)
    return found


def measured(workdir, cell: Cell, budgets: list[str]) -> None:
    """Leave what a measured cell leaves."""
    folder = folder_of(workdir, cell)
    result = {"labels": {}, "seed": 0, "fold": None, "points": {}, "training": {}}
    (folder / "summary.json").write_text("{}")
    (folder / "cell.json").write_text(json.dumps(result | {"asked": asked_of(cell, budgets)}))


def with_setting(cell: Cell, **values) -> Cell:
    changed = configs.changed(cell.config, {k.replace("__", "."): v for k, v in values.items()})
    return Cell(cell.name, cell.labels, cell.seed, cell.fold, changed)


def test_a_cell_is_missing_then_interrupted_then_trained_then_done(tmp_path, cell):
    assert state_of(tmp_path / "elsewhere", cell, ["a"]) is State.MISSING
    assert state_of(tmp_path, cell, ["a"]) is State.INTERRUPTED
    (folder_of(tmp_path, cell) / "summary.json").write_text("{}")
    assert state_of(tmp_path, cell, ["a"]) is State.TRAINED
    measured(tmp_path, cell, ["a", "b"])
    assert state_of(tmp_path, cell, ["a"]) is state_of(tmp_path, cell, ["b", "a"]) is State.DONE


def test_another_budget_or_other_calibration_images_are_measured_anew(tmp_path, cell):
    measured(tmp_path, cell, ["a"])
    assert state_of(tmp_path, cell, ["a", "b"]) is State.TRAINED
    other = with_setting(cell, data__calibration_split="validation")
    assert state_of(tmp_path, other, ["a"]) is State.TRAINED


def test_settings_that_change_nothing_learnt_leave_a_cell_done(tmp_path, cell):
    measured(tmp_path, cell, ["a"])
    other = with_setting(cell, log__tensorboard=False, data__workers=1)
    assert state_of(tmp_path, other, ["a"]) is State.DONE


def test_a_cell_of_other_settings_is_refused_once_it_has_learnt(tmp_path, cell):
    longer = with_setting(cell, train__steps=9)
    with pytest.raises(UserError, match=r"another study.*train\.steps: 8 -> 9.*another --workdir"):
        state_of(tmp_path, longer, ["a"])
    for step in (folder_of(tmp_path, cell) / "checkpoints").iterdir():
        step.rename(tmp_path / step.name)
    assert state_of(tmp_path, longer, ["a"]) is State.MISSING


def test_a_damaged_result_is_said(tmp_path, cell):
    measured(tmp_path, cell, ["a"])
    (folder_of(tmp_path, cell) / "cell.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged .*: delete it, and the cell is measured again"):
        state_of(tmp_path, cell, ["a"])


def test_a_folder_of_something_else_is_refused(tmp_path):
    refuse_other_study(tmp_path / "new", ["a"])
    refuse_other_study(tmp_path, ["a"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"'config\.json' and no study"):
        refuse_other_study(tmp_path, ["a"])
    (tmp_path / "study.json").write_text(json.dumps({"axes": {"b": [], "a": []}}))
    refuse_other_study(tmp_path, ["b", "a"])
    with pytest.raises(UserError, match="another study, with the axes b, a instead of a"):
        refuse_other_study(tmp_path, ["a"])
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        refuse_other_study(tmp_path, ["a"])
