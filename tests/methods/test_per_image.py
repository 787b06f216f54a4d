"""What a model says about an image, read off its output in one place."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from avit_jax import create_model
from avit_jax.data.mix import normalise
from avit_jax.evaluation.run import evaluate_run
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import num_layers, per_image, token_depth
from avit_jax.prediction.run import predict_run
from avit_jax.training.loss import loss_function
from avit_jax.types import Output, Usage
from avit_jax.viz.visualize import visualize_run
from tests import tiny_runs

CLASSES = 5
SIZES = {"embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": CLASSES}


@pytest.fixture(scope="module")
def model() -> Model:
    return create_model("avit_micro_patch4_32", patch_size=16, **SIZES)


def one_stage(**changes) -> Output:
    """Of one image of five tokens, whose class token is finished after two of three layers."""
    tokens = jnp.array([[[1, 1, 1, 1, 1]], [[1, 0, 1, 0, 1]], [[0, 0, 0, 0, 0]]], bool)
    logits = jnp.array([[0.0, 2.0, 0.0, 0.0, 0.0]])
    return Output(logits=logits, usage=(Usage(tokens=tokens),), **changes)


def test_depth_is_the_number_of_layers_that_ran(model):
    decided = {"halting_depth": jnp.array([[3.0, 1, 2, 1, 3]])}
    said = per_image(model, one_stage(aux=decided))
    np.testing.assert_array_equal(said.token_depth, [[2, 1, 2, 1, 2]])
    assert said.depth == pytest.approx(8 / 5)
    assert said.kept["tokens"] == pytest.approx(8 / 15)
    assert said.class_index == 1
    assert said.confidence == pytest.approx(np.exp(2) / (np.exp(2) + 4))
    assert said.gmacs == pytest.approx(model.gmacs(one_stage()))
    assert said.dropped is None
    assert said.exit is None


def test_tokens_without_a_place_are_counted_over_all_layers(model):
    said = per_image(model, one_stage(aux={"dropped": jnp.array([[0], [2], [1]])}))
    assert said.dropped == 3


@dataclasses.dataclass(frozen=True)
class TwoStages:
    """Stands in for a cascade: a network on 2 x 2 patches and one of two layers on 4 x 4."""

    coarse: Model
    fine: Model

    @property
    def stages(self):
        return self.coarse.shape, self.fine.shape

    def gmacs(self, output):
        return Model.gmacs(self, output)


def test_stages_add_up_on_the_grid_of_the_finest(model):
    fine = create_model("avit_micro_patch4_32", patch_size=8, **SIZES | {"depth": 2})
    cascade = TwoStages(model, fine)
    coarse = np.zeros((3, 2, 5), bool)
    coarse[0], coarse[1:, :, 0], coarse[1:, :, 4] = True, True, True
    later = np.zeros((2, 2, 17), bool)
    later[:, 1] = True  # the first image has left after the first stage
    output = Output(
        logits=jnp.zeros((2, 5)),
        exits=jnp.zeros((2, 2, 5)),
        usage=(Usage(tokens=jnp.asarray(coarse)), Usage(tokens=jnp.asarray(later))),
    )
    said = per_image(cascade, output)
    patches = np.ones((4, 4), int)
    patches[2:, 2:] = 3
    np.testing.assert_array_equal(said.token_depth[0], [3, *patches.ravel()])
    np.testing.assert_array_equal(said.token_depth[1], [5, *(patches + 2).ravel()])
    np.testing.assert_array_equal(said.exit, [0, 1])
    assert num_layers(cascade) == 5
    np.testing.assert_allclose(said.kept["tokens"], [9 / 49, (9 + 34) / 49], rtol=1e-6)
    assert said.gmacs[1] - said.gmacs[0] == pytest.approx(fine.dense_gmacs(), rel=1e-5)


def write_images(folder: Path) -> np.ndarray:
    """Images `[CLASSES, 32, 32, 3]`, one of each class, and their files."""
    pixels = np.random.default_rng(4).integers(0, 256, (CLASSES, 32, 32, 3), dtype=np.uint8)
    for label, image in enumerate(pixels):
        (folder / str(label)).mkdir(parents=True)
        Image.fromarray(image).save(folder / str(label) / "image.png")
    return pixels


@pytest.mark.parametrize(
    "name",
    [
        "avit_micro_patch4_32",
        pytest.param("adavit_deit_micro_patch4_32", marks=pytest.mark.slow),
    ],
)
def test_every_mode_tells_the_same_mean_depth(name, tmp_path):
    """Of the same weights and images; tokens of A-ViT would go on behind a finished image."""
    config = tiny_runs.config_of(name)
    config.model.num_classes = CLASSES
    config.data.update(name="folder", dir=str(tmp_path / "data"), eval_split="train")
    config.data.augment.crop_ratio = 1.0
    pixels = write_images(tmp_path / "data" / "train")
    workdir = tmp_path / "run"
    workdir.mkdir()
    _, _, model, params = tiny_runs.trained(workdir, config, seed=2)
    evaluated = evaluate_run(config, workdir)
    lines = predict_run(config, workdir).read_text().splitlines()
    page = visualize_run(config, workdir)
    images = normalise(pixels)
    arguments = (params, images, jax.nn.one_hot(range(CLASSES), CLASSES), jax.random.key(0), 1.0)
    output = jax.jit(model.apply)(params, images)
    depth = np.asarray(token_depth(model, output)).mean()
    assert evaluated["mean_depth"] == pytest.approx(depth, rel=1e-6)
    assert np.mean([json.loads(line)["depth"] for line in lines]) == pytest.approx(depth, rel=1e-5)
    drawn = json.loads((page.parent / "summary.json").read_text())
    assert drawn["mean_depth"] == pytest.approx(depth, rel=1e-6)
    if name.startswith("avit"):  # AdaViT draws at random in training
        _, (logged, _) = jax.jit(loss_function(model))(*arguments)
        assert logged["mean_depth"] == pytest.approx(depth, rel=1e-6)
        assert output.aux["halting_depth"].mean() > depth + 0.1


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_there_is_no_confidence_in_an_answer_that_is_not_finite(model, value):
    logits = jnp.array([[0.0, 2.0, value, 0.0, 0.0]])
    assert np.isnan(per_image(model, one_stage().replace(logits=logits)).confidence)
    assert np.isfinite(per_image(model, one_stage()).confidence)
