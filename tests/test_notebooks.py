"""The notebooks run from top to bottom, and what is kept of an earlier time in them is in order."""

import importlib.util
import re
from pathlib import Path

import jax
import nbformat
import numpy as np
import pytest

from avit_jax import create_model, save_torch
from tests import compiling

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = ("quickstart", "finetune")
SIZES = {"depth": 2, "embed_dim": 24, "num_heads": 2, "image_size": 32}


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Runs a notebook in a folder of its own, on one device."""
    monkeypatch.setenv("XLA_FLAGS", compiling.flags_for(1))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return lambda name, **parameters: module.execute(name, tmp_path, parameters)


def printed(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.get("text", "") for output in outputs)


def pictures(notebook) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow  # the dial of a model that has hardly learnt takes a long search
def test_the_quickstart_trains_shows_dials_and_measures(execute):
    done = execute(
        "quickstart",
        recipe="avit_digits:debug",
        budget=0.6,
        speed={"name": "avit_tiny_patch16_224", "batch_size": 2, "turns": 1},
        sizes=SIZES,
    )
    text = printed(done)
    assert pictures(done) == 2
    assert "Skipped: this machine has a CPU alone" in text
    assert text.count("times as fast") == 2
    assert "depth and position" in text


def test_images_in_a_folder_are_learnt_from_a_file_of_weights(execute, tmp_path):
    model = create_model("deit_tiny_patch16_224", **SIZES)
    params = jax.tree.map(
        lambda leaf: np.random.default_rng(leaf.size).normal(0, 0.1, leaf.shape).astype(np.float32),
        model.abstract_params(),
    )
    save_torch(tmp_path / "deit.safetensors", model.to_torch(params))
    settings = {f"model.{name}": value for name, value in SIZES.items()}
    settings |= {"train.steps": 2, "train.batch_size": 8, "log.tensorboard": False}
    done = execute("finetune", weights="deit.safetensors", settings=settings, budget=0.9)
    assert pictures(done) == 2
    assert "drawings take the place of photographs" in printed(done)
    assert "val/stripes: 40 files" in printed(done)
    assert "of 120 are taken for something else" in printed(done)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_kept_named_as_those_of_a_cpu_and_of_no_place(name):
    file = FOLDER / f"{name}.ipynb"
    assert file.stat().st_size < 1e6
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|root|home|work|Users)/|[A-Z]:\\\\", text)
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    assert pictures(notebook) == 2
    assert "**The outputs kept here** are those of a CPU" in notebook.cells[0].source
    assert "float32" in notebook.cells[0].source


def test_links_to_notebooks_lead_to_files():
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *FOLDER.glob("*.ipynb")]
    named = {
        name for text in texts for name in re.findall(r"(\w+\.ipynb)", text.read_text("utf-8"))
    }
    assert named == {f"{name}.ipynb" for name in NAMES}
    assert all((FOLDER / name).is_file() for name in named)
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in NAMES:
        assert f"/blob/main/notebooks/{name}.ipynb" in readme


def test_a_parameter_that_a_notebook_does_not_have_is_refused(execute):
    with pytest.raises(KeyError, match="quickstart has no parameters"):
        execute("quickstart", recipes="avit_digits")
