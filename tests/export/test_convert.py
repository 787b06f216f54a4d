"""Weights go from a run to a file and back without losing a bit, and replace nothing."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from avit_jax import config as configs
from avit_jax import load_torch
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import weights_of_run
from avit_jax.errors import UserError
from avit_jax.export.convert import convert_run
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training.loop import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Config and workdir of a run, its weights and their moving average."""
    config = configs.debug(configs.base(model="avit_micro_distilled_patch4_32").unlock())
    config.model.update(depth=2, embed_dim=16, num_heads=2, patch_size=16)
    config.train.ema_decay = 0.9
    workdir, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    (workdir / "config.json").write_text(configs.to_json(config))
    params, ema = (
        jax.tree.map(
            lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
            configs.make_model(config).abstract_params(),
        )
        for _ in range(2)
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(5, jax.device_put({"params": params, "ema": ema}))
    checkpoints.close()
    return config, workdir, params, ema


def changed(config, values):
    copy = configs.from_json(configs.to_json(config))
    copy.update_from_flattened_dict(values)
    return copy


def weights(config, workdir):
    return weights_of_run(workdir, configs.make_model(config), make_mesh()).params


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_run_to_a_file_to_a_workdir_and_back_keeps_every_bit(run, tmp_path, ending, capsys):
    config, workdir, _, ema = run
    first, second = tmp_path / f"first{ending}", tmp_path / f"second{ending}"
    convert_run(config, workdir, output=str(first))
    convert_run(config, tmp_path / "copy", source=str(first))
    jax.tree.map(np.testing.assert_array_equal, weights(config, tmp_path / "copy"), ema)
    convert_run(config, workdir, source=str(tmp_path / "copy"), output=str(second))
    assert first.read_bytes() == second.read_bytes()
    origins = json.loads((tmp_path / "copy" / "converted.json").read_text())
    assert origins == {"from": str(first), "model": config.model.name}
    assert f"step 5 of {workdir} (ema)" in capsys.readouterr().out


def test_the_raw_weights_are_taken_where_evaluation_takes_them(run, tmp_path):
    config, workdir, params, _ = run
    convert_run(changed(config, {"eval.weights": "raw"}), workdir, output=str(tmp_path / "raw.pth"))
    found = configs.make_model(config).from_torch(load_torch(tmp_path / "raw.pth"))
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_a_training_starts_from_converted_weights_but_does_not_go_on_in_them(run, tmp_path):
    config, workdir, _, _ = run
    convert_run(config, workdir, output=str(tmp_path / "x.pth"))
    copy = tmp_path / "copy"
    convert_run(config, workdir, source=str(tmp_path / "x.pth"), output=str(copy))
    before = listing(copy)
    with pytest.raises(UserError, match=rf"start from them with --config.init.workdir {copy}"):
        train(config, copy)
    assert listing(copy) == before


def test_nothing_that_exists_is_replaced(run, tmp_path):
    config, workdir, _, _ = run
    file = tmp_path / "x.pth"
    convert_run(config, workdir, output=str(file))
    before = file.read_bytes(), listing(workdir)
    with pytest.raises(UserError, match=r"x\.pth exists and is not replaced"):
        convert_run(config, workdir, output=str(file))
    with pytest.raises(UserError, match="exists and is not replaced"):
        convert_run(config, workdir, source=str(file))
    assert (file.read_bytes(), listing(workdir)) == before
    (tmp_path / "again.json").touch()  # beside a folder, of which it says nothing
    convert_run(config, workdir, source=str(file), output=str(tmp_path / "again"))


@pytest.mark.parametrize(
    ("source", "output", "sentence"),
    [
        (None, None, "there is nothing to convert from one workdir to another: write a weight"),
        (None, "elsewhere", "there is nothing to convert from one workdir to another"),
        (None, "x.npz", "weights cannot be written to"),
        ("missing.pth", "elsewhere", r"missing\.pth does not exist"),
        ("missing", "x.pth", "missing holds no config.json"),
    ],
)
def test_what_cannot_be_converted_gets_one_sentence_and_leaves_nothing(
    run, tmp_path, monkeypatch, source, output, sentence
):
    config, workdir, _, _ = run
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        convert_run(config, workdir, source=source, output=output)
    assert listing(tmp_path) == []


def test_a_conversion_that_breaks_off_leaves_no_workdir(run, tmp_path, monkeypatch):
    config, workdir, _, _ = run
    convert_run(config, workdir, output=str(tmp_path / "x.pth"))
    monkeypatch.setattr("avit_jax.export.convert.write_json_atomic", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert_run(config, tmp_path / "copy", source=str(tmp_path / "x.pth"))
    assert listing(tmp_path) == ["x.pth", "x.pth.json"]


def test_a_file_gets_the_names_asked_for_and_a_folder_of_the_hub_is_read(run, tmp_path):
    config, workdir, _, ema = run
    folder = tmp_path / "hub"
    folder.mkdir()
    file = folder / "model.safetensors"
    convert_run(config, workdir, output=str(file), layout="transformers")
    assert "deit.encoder.layer.1.attention.attention.query.weight" in load_file(file)
    convert_run(config, tmp_path / "copy", source=str(folder))
    jax.tree.map(np.testing.assert_array_equal, weights(config, tmp_path / "copy"), ema)
    with pytest.raises(UserError, match=r"--layout transformers is for weight files, but --output"):
        convert_run(config, tmp_path / "y", source=str(file), layout="transformers")
