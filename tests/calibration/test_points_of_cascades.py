"""A stored operating point of a cascade is obeyed by what uses a trained model."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from avit_jax.checkpoints.operating_points import (
    OperatingPoint,
    at_operating_point,
    measured_with,
    save_points,
)
from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.digits import DigitsSource
from avit_jax.data.mix import normalise
from avit_jax.export import load
from avit_jax.export.run import export_run
from avit_jax.methods.dvt.early_exit import confidence
from avit_jax.prediction.run import predict_run
from avit_jax.viz.visualize import visualize_run
from tests import tiny_runs

IMAGES = 4


@pytest.fixture(scope="module")
def at_point(tmp_path_factory):
    """A config at a point by which half of the images leave at the first exit, workdir, files of
    digits and their pixels, and what each should cost and where it should stop."""
    config = tiny_runs.config_of("dvt_deit_micro", depth=1)
    config.method.grids = (2, 4)
    _, workdir, model, params = tiny_runs.trained(tmp_path_factory.mktemp("run"), config)
    folder, source = tmp_path_factory.mktemp("images"), DigitsSource(split="validation")
    for index in range(IMAGES):
        Image.fromarray(source[index].image).save(folder / f"{index}.png")
    crop = Augment(**config.data.augment)
    pixels = [eval_image(source[i].image, size=32, augment=crop) for i in range(IMAGES)]
    images = normalise(np.stack(pixels))
    sure = np.asarray(confidence(jax.jit(model.apply)(params, images).exits[0], 0.5))
    settings = {"thresholds": [float(np.median(sure))], "temperatures": [0.5]}
    point = OperatingPoint(
        name="0.5",
        settings=settings,
        target_gmacs=None,
        gmacs_calibration=1.0,
        gmacs=1.0,
        gmacs_dense=model.dense_gmacs(),
        top1=0.5,
        mean_depth=1.0,
    )
    save_points(workdir, measured_with(config, workdir), [point])
    changed = at_operating_point(config, workdir, "0.5")
    changed.inference.update(execution="masked", batch_size=IMAGES)
    first, last = np.asarray(model.gmacs_by_exit(jax.jit(model.apply)(params, images)))[:, 0]
    stops = (sure < settings["thresholds"][0]).astype(int)
    assert sorted(stops) == [0, 0, 1, 1]
    expected = {"gmacs": np.where(stops, last, first), "exit": stops}
    return changed, workdir, folder, pixels, expected


def test_predictions_obey_a_point(at_point, tmp_path):
    config, workdir, folder, _, expected = at_point
    file = tmp_path / "answers.jsonl"
    predict_run(config, workdir, source=str(folder), output=file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for name, values in expected.items():
        np.testing.assert_allclose([line[name] for line in lines], values, rtol=2e-5)


def test_exports_obey_a_point(at_point, tmp_path):
    config, workdir, _, pixels, expected = at_point
    program = load.load(export_run(config, workdir, output=tmp_path / "program"))
    np.testing.assert_allclose(program(pixels)["gmacs"], expected["gmacs"], rtol=2e-5)


def test_pictures_obey_a_point(at_point, tmp_path):
    config, workdir, folder, _, expected = at_point
    page = visualize_run(config, workdir, source=str(folder), output=tmp_path / "report")
    summary = json.loads((page.parent / "summary.json").read_text())
    for name, values in expected.items():
        np.testing.assert_allclose([row[name] for row in summary["rows"]], values, rtol=2e-5)
    assert (page.parent / "charts" / "exit_photographs.png").is_file()
