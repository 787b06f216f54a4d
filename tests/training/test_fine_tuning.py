"""Photographs in a folder, learnt from published weights that a stand-in of the hub has."""

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from avit_jax import create_model, save_torch
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import initial_weights
from avit_jax.experiment import Experiment
from avit_jax.runtime.device_mesh import shard_batch
from avit_jax.training.optimization import Optimization
from avit_jax.training.start import restore_or_init
from tests.hub import stand_in

FILE = Path(__file__).parents[2] / "configs" / "finetune.py"
SIZES = {"depth": 2, "embed_dim": 24, "num_heads": 2, "image_size": 32}
ADDRESSES = {"timm": "hf://timm/deit_tiny", "transformers": "hf://facebook/deit-tiny"}


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 2)):
        for name in ("cat", "dog", "emu"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return str(tmp_path / "photos")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A tiny DeiT of a thousand classes, published in two layouts."""
    model = create_model("deit_tiny_patch16_224", **SIZES | {"image_size": 48})
    generator = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 0.1, leaf.shape).astype(np.float32),
        model.abstract_params(),
    )
    hub = stand_in(monkeypatch)
    for layout, address in ADDRESSES.items():
        file = tmp_path / f"{layout}.safetensors"
        save_torch(file, model.to_torch(params, layout=layout))
        hub.there[f"{address.removeprefix('hf://')}/model.safetensors"] = file
    return params


def test_fine_tuning_begins_alike_from_the_names_of_timm_and_of_hugging_face(hub, photos, tmp_path):
    spec = importlib.util.spec_from_file_location("finetune", FILE)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    config = module.get_config()
    config.data.dir, config.init.weights = photos, ADDRESSES["timm"]
    config.model.update(SIZES)
    config.train.update(steps=3, batch_size=8)
    experiment = Experiment(config, tmp_path / "run")
    assert experiment.model.shape.num_classes == 3
    optimization = Optimization(experiment.settings, experiment.model, 3)
    state = restore_or_init(experiment, optimization, Checkpoints(tmp_path / "run"))
    start = jax.tree.map(np.array, state.params)
    np.testing.assert_array_equal(
        start["blocks"]["norm1"]["scale"], hub["blocks"]["norm1"]["scale"]
    )
    init = dataclasses.replace(experiment.settings.init, weights=ADDRESSES["transformers"])
    theirs = initial_weights(init, experiment.model, experiment.mesh).params
    states = [state, state.replace(params=theirs, ema=jax.tree.map(jnp.copy, theirs))]
    with contextlib.closing(experiment.train_batches(0)) as batches:
        some = list(itertools.islice(batches, 3))
    step, losses = optimization.compiled_step(experiment.mesh), []
    for state in map(functools.partial(jax.tree.map, jnp.copy), states):  # a step donates it
        for batch in some:
            rows = {name: batch[name] for name in ("image", "label")}
            rows["substituted"] = batch["index"] != batch["requested"]
            state, averages = step(state, shard_batch(rows, experiment.mesh))
            losses.append(float(averages["loss"]))
    assert np.isfinite(losses).all()
    assert losses[:3] == losses[3:]
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, state.params)
    assert not any(jax.tree.leaves(moved.pop("patch_embed")))
    assert all(jax.tree.leaves(moved))
    assert not np.array_equal(state.ema["head"]["kernel"], state.params["head"]["kernel"])
