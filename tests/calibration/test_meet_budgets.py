"""From a budget to a stored operating point, and from its name to a model that keeps to it."""

import dataclasses
import json
import re

import pytest
from absl import flags
from absl.testing import flagsaver

import avit_jax
from avit_jax import config as configs
from avit_jax import main
from avit_jax.calibration import dialled_model, meet_budgets
from avit_jax.checkpoints.budgets import Budget
from avit_jax.checkpoints.operating_points import FILE, at_operating_point
from avit_jax.config.data import Data
from avit_jax.evaluation import evaluate
from avit_jax.evaluation.run import evaluate_run
from tests import tiny_runs

ASKED = ["0.70", "0.0003gmacs"]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Config, workdir and points of a small run, and how often its step was traced."""
    config = tiny_runs.config_of(depth=4)
    config.eval.batch_size = 256
    _, workdir, *_ = tiny_runs.trained(tmp_path_factory.mktemp("run"), config, step=1)
    traces = []
    sums = evaluate.sums
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialled_model, "CALIBRATION_IMAGES", 256)
        patch.setattr(meet_budgets, "CURVE", (Budget(0.1, "share"), Budget(0.8, "share")))
        patch.setattr(evaluate, "sums", lambda *given: traces.append(1) or sums(*given))
        points = meet_budgets.dial_run(config, workdir, ASKED)
    return config, workdir, points, len(traces)


def test_budgets_are_met_by_one_compiled_program(calibrated):
    _, workdir, points, traces = calibrated
    assert {point.name for point in points} == {"0.7", "0.0003gmacs", "0.8", "learnt"}
    for point in points:
        if point.name != "learnt":
            assert point.gmacs_calibration == pytest.approx(point.target_gmacs, rel=0.02)
            assert point.gmacs == pytest.approx(point.target_gmacs, rel=0.05)
    by_cost = [point.gmacs_calibration for point in points]
    centers = [point.settings["gate_center"] for point in points]
    assert by_cost == sorted(by_cost)
    assert centers == sorted(centers)
    assert traces == 2  # all settings of the dial, and dense execution
    assert (workdir / meet_budgets.PICTURE).stat().st_size > 10_000


def test_a_point_in_force_costs_and_answers_what_is_stored(calibrated, capsys):
    config, workdir, points, _ = calibrated
    point = next(point for point in points if point.name == "0.7")
    changed = at_operating_point(config, workdir, "0.700")
    assert config.method.gate_center == 0.5
    results = evaluate_run(changed, workdir, operating_point="0.700")
    assert results["gmacs"] == pytest.approx(point.gmacs, rel=1e-5)
    assert results["top1"] == point.top1
    assert results["mean_depth"] == pytest.approx(point.mean_depth, rel=1e-5)
    assert json.loads((workdir / "eval_0.7.json").read_text())["gmacs"] == results["gmacs"]
    assert not (workdir / "eval.json").exists()
    assert re.search(r"operating point +0\.7 ", capsys.readouterr().out)
    loaded = avit_jax.load_run(workdir, operating_point=0.7)
    assert loaded.model.settings.gate_center == changed.method.gate_center


def test_the_learnt_point_changes_nothing(calibrated):
    config, workdir, _, _ = calibrated
    assert at_operating_point(config, workdir, "learnt").to_dict() == config.to_dict()


def test_points_are_not_used_with_anything_else(calibrated, tmp_path):
    config, workdir, _, _ = calibrated
    with pytest.raises(ValueError, match=r"one of .*0\.7, .*0\.8"):
        at_operating_point(config, workdir, "0.75")
    other = configs.from_json(configs.to_json(config))
    other.method.eps = 0.2
    with pytest.raises(ValueError, match=r"config\.method\.eps: 0\.01 -> 0\.2"):
        at_operating_point(other, workdir, "0.7")
    with pytest.raises(ValueError, match=r"no operating points: run .*--budget 0\.7"):
        at_operating_point(config, tmp_path, "0.7")
    (tmp_path / FILE).write_text((workdir / FILE).read_text())
    tiny_runs.trained(tmp_path, config, step=1, seed=1)
    with pytest.raises(ValueError, match=r"the checkpoint's contents"):
        at_operating_point(config, tmp_path, "0.7")
    tiny_runs.trained(tmp_path, config, step=2)
    with pytest.raises(ValueError, match=r"the checkpoint's step: 1 -> 2"):
        at_operating_point(config, tmp_path, "0.7")
    (tmp_path / FILE).write_text(json.dumps({"points": [{"name": "0.7"}]}))
    with pytest.raises(ValueError, match="delete it"):
        at_operating_point(config, tmp_path, "0.7")


def test_a_budget_out_of_reach_is_refused_and_stores_nothing(calibrated, monkeypatch):
    config, workdir, points, _ = calibrated
    monkeypatch.setattr(dialled_model, "CALIBRATION_IMAGES", 64)
    before = (workdir / FILE).read_text()
    most = points[0].gmacs_dense
    with pytest.raises(ValueError, match=rf"to {most:.4g} GMACs per image, .* to 1\.00 of dense"):
        meet_budgets.dial_run(config, workdir, ["0.7", "5gmacs"])
    assert (workdir / FILE).read_text() == before


def test_a_model_without_a_dial_is_refused(tmp_path):
    config = configs.base(model="deit_micro_patch4_32")
    with pytest.raises(ValueError, match="nothing to turn"):
        meet_budgets.dial_run(config, tmp_path, ["0.7"])


def test_flags_in_the_wrong_mode_are_refused(tmp_path):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(budget=["0.8"], mode="predict"):
        with pytest.raises(ValueError, match=r"--operating_point 0\.8"):
            main.chosen_config(tmp_path)
    with flagsaver.flagsaver(operating_point="0.8", mode="train"):
        with pytest.raises(ValueError, match="leave it out"):
            main.chosen_config(tmp_path)


def test_new_points_join_those_of_the_same_weights_only(calibrated, tmp_path):
    _, _, points, _ = calibrated
    from avit_jax.checkpoints.operating_points import save_points

    save_points(tmp_path, {"checkpoint_step": 1, "config": {}}, points)
    again = dataclasses.replace(points[0], top1=0.5)
    file = save_points(tmp_path, {"checkpoint_step": 1, "config": {}}, [again])
    stored = {entry["name"]: entry for entry in json.loads(file.read_text())["points"]}
    assert set(stored) == {point.name for point in points}
    assert stored[again.name]["top1"] == 0.5
    save_points(tmp_path, {"checkpoint_step": 2, "config": {}}, [again])
    assert len(json.loads(file.read_text())["points"]) == 1


def test_points_of_a_run_that_is_older_than_a_setting_stay_in_force(calibrated, tmp_path):
    config, workdir, *_ = calibrated
    stored = json.loads((workdir / FILE).read_text())
    del stored["measured_with"]["config"]["method"]["df"]
    for name in ("checkpoints", "config.json"):
        (tmp_path / name).symlink_to(workdir / name)
    (tmp_path / FILE).write_text(json.dumps(stored))
    changed = at_operating_point(config, tmp_path, "0.7")
    assert changed.method.gate_center != config.method.gate_center


@pytest.mark.parametrize(
    ("calibration", "training", "evaluation", "same"),
    [
        (None, "train", "validation", False),
        (None, "validation", "validation", True),
        ("test", "train", "test", True),
        ("test[:50%]", "train", "test", True),
        ("test", "train", "test[50%:]", True),
        ("test[:50%]", "train", "test[50%:]", False),
    ],
)
def test_a_budget_that_is_met_on_the_images_of_its_accuracy_is_said_to_be(
    calibration, training, evaluation, same, caplog
):
    data = Data(train_split=training, calibration_split=calibration, eval_split=evaluation)
    assert data.tries_what_it_evaluates == same
    meet_budgets._name_same_images(data)
    assert ("data.calibration_split" in caplog.text) == same
    assert (f"found on images of {data.tried_on}" in caplog.text) == same
