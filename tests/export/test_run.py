"""From a trained run to files that answer as the model does."""

import ast
import json
import shutil
import sys

import jax
import numpy as np
import pytest

from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.export import load
from avit_jax.export import run as export
from avit_jax.export.check import check_images
from tests.export.conftest import PLAN
from tests.survival import damages


@pytest.fixture(scope="module")
def images(run):
    return check_images(Experiment(run[0], run[1]))[0][:5]


@pytest.fixture(scope="module")
def expected(run, images):
    output = jax.jit(run[2].apply)(run[3], normalise(images))
    depth = np.asarray(output.usage[0].tokens.sum(0))
    assert len(np.unique(depth)) > 1
    return {"logits": output.logits, "depth": depth, "gmacs": run[2].gmacs(output)}


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    config = run[0].copy_and_resolve_references()
    config.inference.update(PLAN.to_dict())
    return export.export_run(config, run[1], output=tmp_path_factory.mktemp("out") / "digits")


def same(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_a_compact_program_answers_as_the_model_for_any_number_of_images(folder, images, expected):
    answer = load.load(folder)
    same(answer(images), expected)
    for count in (1, 0):
        same(answer(images[:count]), {name: values[:count] for name, values in expected.items()})
    same(answer(list(images)), expected)
    for wrong, said in (
        (images / 255.0, r"images are float64 \[5, 32, 32, 3\], but this program takes pixels"),
        (images[0], r"images are uint8 \[32, 32, 3\]"),
        (images[:, :8], r"images are uint8 \[5, 8, 32, 3\]"),
        ([images[0], images[0, :8]], "images of a list have several shapes"),
        ("cat.jpg", "images are"),
    ):
        with pytest.raises(ValueError, match=said):
            answer(wrong)


def test_the_folder_says_all_that_its_user_needs_and_nothing_about_this_machine(folder, run):
    assert {path.name for path in folder.parent.iterdir()} == {"digits"}
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.stablehlo", "weights.npz", "export.json", "load.py"}
    text = (folder / "export.json").read_text()
    description = json.loads(text)
    assert description["labels"] == [str(digit) for digit in range(10)]
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    assert (description["execution"], description["batch_size"]) == ("compact", 4)
    assert description["preprocessing"]["outside"]["central_crop"] == 32
    assert description["config"]["method"]["gate_scale"] == 3.0
    assert "secret" not in text


def test_the_loader_needs_jax_and_numpy_only(folder):
    nodes = ast.walk(ast.parse((folder / "load.py").read_text()))
    used = {
        name.split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
        )
    }
    assert used - set(sys.stdlib_module_names) == {"jax", "numpy"}


@pytest.mark.parametrize("name", ["export.json", "model.stablehlo", "weights.npz"])
@pytest.mark.parametrize("damage", [damages.truncated, damages.flipped, damages.removed])
def test_a_damaged_file_is_refused(folder, tmp_path, name, damage):
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy / name)
    if (name, damage) == ("export.json", damages.flipped):
        damages.brace_flipped(copy / name)  # of JSON nobody knows whether another letter is damage
    with pytest.raises(ValueError, match=rf"{name} in .*: export the run again\."):
        load.load(copy)


def test_what_is_missing_beside_a_whole_program_is_not_called_damage(folder, monkeypatch):
    def missing(stored):
        raise ImportError("Please install 'flatbuffers'")

    monkeypatch.setattr(load.export, "deserialize", missing)
    with pytest.raises(ImportError, match="flatbuffers"):
        load.load(folder)


def test_a_masked_program_takes_any_number_of_images_at_once(run, images, expected, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.inference.execution = "masked"
    target = export.export_run(config, run[1], output=tmp_path / "masked")
    assert json.loads((target / "export.json").read_text())["batch_size"] is None
    for count in (5, 0):
        wanted = {name: values[:count] for name, values in expected.items()}
        same(load.load(target)(images[:count]), wanted)


def test_a_taken_place_is_refused_and_left_alone(run, folder, tmp_path):
    before = (folder / "weights.npz").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        export.export_run(run[0], run[1], output=folder)
    assert (folder / "weights.npz").read_bytes() == before


def test_a_failed_export_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no more memory")

    config = run[0].copy_and_resolve_references()
    config.inference.execution = "dense"
    monkeypatch.setattr(export.load, "load", fail)
    with pytest.raises(RuntimeError, match="no more memory"):
        export.export_run(config, run[1], output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_without_the_data_the_comparison_says_that_it_saw_noise(run):
    config = run[0].copy_and_resolve_references()
    config.data.update(name="folder", dir="nowhere")
    images, title = check_images(Experiment(config, run[1]))
    assert images.dtype == np.uint8
    assert "noise" in title


def test_onnx_without_its_packages_is_one_sentence(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxruntime: .* '\.\[onnx\]'"):
        export.export_run(run[0], run[1], output=tmp_path / "model.onnx")
