"""One way in for every mode, which opens what is asked of it and nothing else."""

import ast
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avit_jax import experiment as experiment_module
from avit_jax.benchmark.cases import cases
from avit_jax.config import Settings
from avit_jax.errors import UserError
from avit_jax.evaluation.run import evaluate_run
from avit_jax.experiment import Experiment
from tests import tiny_runs


@pytest.fixture
def config():
    return tiny_runs.config_of()


def test_nothing_is_opened_before_it_is_asked_for(config, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("opened")

    for name in ("open_source", "make_mesh", "weights_of_run"):
        monkeypatch.setattr(experiment_module, name, refuse)
    experiment = Experiment(config, tmp_path)
    assert experiment.model.shape.depth == 3
    assert experiment.settings.data.augment.crop_ratio == config.data.augment.crop_ratio
    for ask in (lambda: experiment.eval_source, lambda: experiment.mesh, experiment.weights):
        with pytest.raises(AssertionError, match="opened"):
            ask()


def test_an_evaluation_does_not_open_the_training_data(config, tmp_path):
    config.data.update(train_split="nowhere")
    config.eval.batch_size = 512
    tiny_runs.trained(tmp_path, config)
    assert evaluate_run(config, tmp_path)["images"] == 510
    with pytest.raises(UserError, match="no split 'nowhere'"):
        _ = Experiment(config, tmp_path).train_source


def test_synthetic_cases_of_a_benchmark_open_no_data(config, tmp_path):
    config.data.update(name="folder", dir=str(tmp_path / "nowhere"))
    config.benchmark.update(batch_sizes=(8,), profiles=("half",))
    experiment = Experiment(config, tmp_path)
    (case,) = cases(experiment, experiment.settings.benchmark)
    assert case.images.shape == (8, 32, 32, 3)


# Where configs are written down, compared with others or changed into others.
DOCUMENTS = {
    "checkpoints/description.py", "checkpoints/operating_points.py", "checkpoints/weights.py",
    "evaluation/run.py",
    "export/convert.py", "prediction/answer_lines.py", "experiment.py",
    "study/cell_process.py", "study/design.py", "study/results.py", "study/run.py",
}  # fmt: skip


def test_what_runs_reads_typed_settings_and_no_config():
    sections = {"model", "method", *(field.name for field in dataclasses.fields(Settings))}
    package = Path(experiment_module.__file__).parent
    readers = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in sections
        and ast.unparse(node.value).split(".")[-1] == "config"
    }
    assert {file for file in readers if not file.startswith("config/")} == DOCUMENTS


def test_a_part_is_opened_once(config, tmp_path):
    experiment = Experiment(config, tmp_path)
    assert experiment.eval_source is experiment.eval_source
    assert experiment.model is experiment.model


def test_epochs_end_in_whole_steps(config, tmp_path):
    config.train.update(batch_size=100, steps=None, epochs=2.0)
    experiment = Experiment(config, tmp_path)
    assert experiment.total_steps == round(2 * 1287 / 100)
    assert experiment.steps(0.001) == 1


def test_evaluation_images_know_all_labels_and_travel_to_other_processes(config, tmp_path):
    selection = pickle.loads(pickle.dumps(Experiment(config, tmp_path).eval_images(5)))
    assert len(selection) == 5
    assert selection.labelled == (True,) * 5
    assert selection[1].label == selection.source[102].label
    assert "validation[102]" in selection.describe(1)
    assert selection.title == "digits, validation"


def test_images_to_measure_on_reach_from_the_first_to_the_last(config, tmp_path):
    experiment = Experiment(config, tmp_path)
    images, labels = experiment.measured_images(3)
    assert images.shape == (3, 32, 32, 3) and images.dtype == np.uint8
    assert labels.tolist() == [experiment.eval_source[index].label for index in (0, 254, 509)]


def test_images_that_cannot_be_read_are_left_out_and_named(config, tmp_path, caplog):
    folder = tmp_path / "train" / "0"
    for label in range(10):
        (tmp_path / "train" / str(label)).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "train" / str(label) / "one.png")
    (folder / "one.png").write_bytes(b"no image")
    config.data.update(name="folder", dir=str(tmp_path), eval_split="train")
    images, labels = Experiment(config, tmp_path).measured_images(100)
    assert labels.tolist() == list(range(1, 10)) and len(images) == 9
    assert "0/one.png" in caplog.text


def test_data_of_another_number_of_classes_are_refused(config, tmp_path):
    config.model.num_classes = 7
    with pytest.raises(UserError, match="10 classes, the model 7"):
        Experiment(config, tmp_path).eval_images(5)


def test_without_the_data_classes_have_numbers_and_the_reason_is_logged(config, tmp_path, caplog):
    assert Experiment(config, tmp_path).class_names == (tuple("0123456789"), True)
    config.data.update(name="folder", dir=str(tmp_path / "nowhere"))
    experiment = Experiment(config, tmp_path)
    names, are_known = experiment.class_names
    assert experiment.class_names[0] == names
    assert names[3] == "class 3" and not are_known
    (reason,) = caplog.messages  # told once, however often the names are asked for
    assert "nowhere" in reason


@pytest.mark.parametrize("name", ["train", "eval"])
def test_batches_that_the_devices_cannot_share_are_refused(name, config, tmp_path):
    config[name].batch_size = 12  # of 8 devices
    with pytest.raises(UserError, match=f"config.{name}.batch_size.* is 12, .* multiple of 8"):
        getattr(Experiment(config, tmp_path), f"refuse_uneven_{name}_batch")()
