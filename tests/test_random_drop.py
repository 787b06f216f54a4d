"""A method outside the package goes through every mode, named by its import path alone."""

import json

import jax
import numpy as np
import pytest

import avit_jax
from avit_jax import config as configs
from avit_jax.benchmark.run import benchmark_run
from avit_jax.calibration import dialled_model, fastest_plan, meet_budgets
from avit_jax.data.mix import normalise
from avit_jax.evaluation.run import evaluate_run
from avit_jax.export import load
from avit_jax.export import run as export
from avit_jax.export.convert import convert_run
from avit_jax.prediction.run import predict_run
from avit_jax.pretrained.weights import load_torch
from avit_jax.training.loop import train
from avit_jax.viz import depth_maps
from avit_jax.viz.visualize import visualize_run
from tests import tiny_runs

NAME = "tests.methods.random_drop:MICRO"
BATCH = 8


@pytest.fixture(scope="module")
def config():
    config = configs.debug(configs.base(model=NAME))
    config.train.steps = 2
    config.log.tensorboard = False
    config.inference.batch_size = BATCH
    config.eval.batch_size = 64
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    return tiny_runs.trained(tmp_path_factory.mktemp("run"), config)


def test_it_trains_and_its_config_is_read_again(config, tmp_path, monkeypatch):
    monkeypatch.setattr(depth_maps, "SHOWN", 1)
    train(config, tmp_path)
    saved = configs.read(tmp_path / "config.json")
    assert saved.model.name == NAME
    assert configs.make_model(saved) == configs.make_model(config)
    assert (tmp_path / "metrics.jsonl").read_text().strip()


def test_it_is_evaluated(run):
    summary = evaluate_run(run.config, run.workdir)
    assert summary["gmacs"] < 0.9 * run.model.dense_gmacs()


def test_it_predicts(run, tmp_path):
    predict_run(run.config, run.workdir, output=tmp_path / "answers.jsonl")
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert len(lines) > BATCH and "label" in json.loads(lines[-1])


def test_it_is_calibrated_and_meets_a_budget(run, monkeypatch):
    monkeypatch.setattr(fastest_plan, "TURNS", 2)
    monkeypatch.setattr(dialled_model, "CALIBRATION_IMAGES", 256)
    monkeypatch.setattr(meet_budgets, "CURVE", ())
    fastest_plan.calibrate_run(run.config, run.workdir)
    assert (run.workdir / "plans.json").exists()
    points = meet_budgets.dial_run(run.config, run.workdir, ["0.7"])
    (point,) = (point for point in points if point.name == "0.7")
    assert point.gmacs == pytest.approx(0.7 * run.model.dense_gmacs(), rel=0.1)


def test_it_is_benchmarked_on_its_own_images_for_want_of_synthetic_ones(run, tmp_path, capsys):
    config = run.config.copy_and_resolve_references()
    config.benchmark.update(batch_sizes=(BATCH,), turns=1, profiles=None)
    file = benchmark_run(config, run.workdir, output=tmp_path)
    (case,) = json.loads(file.read_text())["cases"]
    assert case["profile"] == "real"
    assert case["executions"]["compact"]["logit_difference"] < 1e-5
    assert case["executions"]["compact"]["gmacs_executed"] == pytest.approx(case["gmacs_needed"])
    assert "method random_drop has no synthetic profiles" in capsys.readouterr().out


def test_it_is_exported(run, tmp_path):
    config = run.config.copy_and_resolve_references()
    config.inference.execution = "compact"
    folder = export.export_run(config, run.workdir, output=tmp_path / "export")
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), np.uint8)
    expected = jax.jit(run.model.apply)(run.params, normalise(images)).logits
    np.testing.assert_allclose(load.load(folder)(images)["logits"], expected, atol=1e-4)


def test_its_weights_are_converted(run, tmp_path):
    file = convert_run(run.config, run.workdir, output=str(tmp_path / "weights.pth"))
    read = run.model.from_torch(load_torch(file))
    jax.tree.map(np.testing.assert_array_equal, read, run.params)


def test_it_is_drawn(run, tmp_path):
    page = visualize_run(run.config, run.workdir, output=tmp_path / "pictures", limit=3)
    summary = json.loads((page.parent / "summary.json").read_text())
    # Of 1 class token and 16 patches, 8 patches stay behind the first of three blocks.
    assert summary["mean_depth"] == pytest.approx((17 + 9 + 9) / 17)
    assert summary["kept"]["tokens"] == pytest.approx((17 + 9 + 9) / 51)
    assert page.read_text().count('<article class="card"') == summary["images"] == 3
    assert len(list((page.parent / "images").glob("*_depth.png"))) == 3
    assert (page.parent / "charts" / "live_tokens.png").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.methods.nowhere:MICRO", "cannot be imported .*No module named"),
        (":MICRO", "cannot be imported"),
        ("tests.methods.random_drop:NOTHING", "is missing: write .*one of TINY, MICRO"),
        ("tests.methods.random_drop:NOT_A_MODEL", "is no Model: write .*one of TINY, MICRO"),
    ],
)
def test_a_path_that_names_no_model_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        avit_jax.create_model(name)


def test_settings_of_a_method_of_ones_own_are_checked_like_others():
    model = avit_jax.create_model(NAME, method={"keep": 0.25}, depth=5)
    assert (model.settings.keep, model.shape.depth) == (0.25, 5)
    with pytest.raises(ValueError, match="valid ones are keep, whole_blocks"):
        avit_jax.create_model(NAME, method={"share": 0.5})
