"""Budgets of a cascade: thresholds that are fitted, stored, and obeyed by every mode."""

import json

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax.calibration import dialled_model, meet_budgets
from avit_jax.calibration.dialled_model import DialledModel
from avit_jax.calibration.exit_answers import answers_of
from avit_jax.checkpoints.operating_points import FILE, at_operating_point
from avit_jax.evaluation.run import evaluate_run
from avit_jax.experiment import Experiment
from tests import tiny_runs

pytestmark = pytest.mark.slow  # its parts are tested beside the methods, in seconds


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Config, workdir and points of a small cascade of three exits."""
    config = tiny_runs.config_of("dvt_deit_micro", depth=1)
    config.method.grids = (2, 3, 4)
    config.eval.batch_size = 256
    config.data.calibration_split = "train"
    _, workdir, *_ = tiny_runs.trained(tmp_path_factory.mktemp("run"), config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialled_model, "CALIBRATION_IMAGES", 256)
        patch.setattr(meet_budgets, "CURVE", ())
        points = meet_budgets.dial_run(config, workdir, ["0.5", "0.7"])
    return config, workdir, points


def test_budgets_are_met_and_families_and_exits_stand_beside_them(calibrated, monkeypatch):
    config, workdir, points = calibrated
    assert [point.name for point in points] == ["0.5", "0.7", "learnt"]
    for point in points[:2]:
        assert point.gmacs_calibration == pytest.approx(point.target_gmacs, rel=0.02)
        assert point.gmacs == pytest.approx(point.target_gmacs, rel=0.1)
        assert all(len(point.settings[name]) == 2 for name in ("thresholds", "temperatures"))
    assert points[2].gmacs == pytest.approx(points[2].gmacs_dense)
    stored = json.loads((workdir / FILE).read_text())
    assert stored["calibration"] == "256 images of digits, train"
    assert stored["evaluation_held_out"] is True
    assert [point["name"] for point in stored["quotas"]] == ["0.5", "0.7"]
    assert stored["exits"]["top1"][-1] == points[2].top1
    stages = [shape.grid for shape in Experiment(config, workdir).model.stages]
    assert len(stored["exits"]["gmacs"]) == len(stages)
    assert stored["exits"]["gmacs"][-1] == pytest.approx(points[2].gmacs_dense)


def test_what_a_dial_says_that_it_costs_is_what_running_costs(calibrated, monkeypatch):
    config, workdir, points = calibrated
    monkeypatch.setattr(dialled_model, "CALIBRATION_IMAGES", 256)
    experiment = Experiment(config, workdir)
    params = experiment.weights().params
    dialled = DialledModel(experiment, params)
    settings = points[0].settings
    model = experiment.model.changed(settings)
    images = np.concatenate([batch["image"][batch["valid"]] for batch in dialled._batches])
    output = jax.jit(model.apply)(params, images)
    assert float(model.gmacs(output).mean()) == pytest.approx(points[0].gmacs_calibration, rel=1e-5)
    said = answers_of(experiment.model, params, dialled._batches, experiment.mesh)(
        {"threshold_shift": 1e4}
    )
    assert said.logits.shape == (3, 256, 10)
    np.testing.assert_allclose(said.gmacs[-1], experiment.model.dense_gmacs(), rtol=1e-5)


def test_every_mode_obeys_a_point(calibrated, tmp_path):
    config, workdir, points = calibrated
    point = points[0]
    changed = at_operating_point(config, workdir, "0.50")
    assert changed.method.thresholds == point.settings["thresholds"]
    results = evaluate_run(changed, workdir, operating_point="0.5")
    assert results["gmacs"] == pytest.approx(point.gmacs, rel=1e-5)
    assert results["top1"] == point.top1
    assert results["exit_gmacs"][-1] == pytest.approx(point.gmacs, rel=1e-5)
    assert at_operating_point(config, workdir, "learnt").to_dict() == config.to_dict()
    loaded = avit_jax.load_run(workdir, operating_point=0.5)
    assert loaded.model.settings.temperatures == point.settings["temperatures"]


@pytest.mark.parametrize("value", [[0.5, "0.6"], [0.5, None], True, float("nan")])
def test_settings_that_no_dial_says_are_named(calibrated, tmp_path, value):
    config, workdir, _ = calibrated
    stored = json.loads((workdir / FILE).read_text())
    stored["points"][0]["settings"]["thresholds"] = value
    (tmp_path / FILE).write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"setting thresholds of point 0\.5 .* delete it"):
        at_operating_point(config, tmp_path, "0.7")
