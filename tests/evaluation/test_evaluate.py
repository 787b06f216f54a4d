"""Evaluation counts every valid image once, against a plain loop over the same images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.evaluation.evaluate import evaluate, make_eval_step
from avit_jax.runtime.device_mesh import make_mesh
from tests.evaluation.digit_split import IMAGES, LAYERS, batches, of_classes


@pytest.fixture(scope="module")
def params(model):
    """Weights spread out enough for the answers and the depths to differ."""
    generator = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.3, leaf.shape), jnp.float32),
        model.abstract_params(),
    )


@pytest.fixture(scope="module")
def steps(model):
    """Number of devices -> mesh and jitted step."""
    meshes = {1: make_mesh(devices=jax.devices()[:1]), 8: make_mesh(4, 2)}
    return {count: (mesh, make_eval_step(model, mesh)) for count, mesh in meshes.items()}


@pytest.fixture(scope="module")
def expected(model, params, split):
    """The figures from one forward pass over the valid images and a loop in NumPy."""
    valid = split["valid"]
    labels = split["label"][valid]
    output = jax.jit(model.apply)(params, normalise(jnp.asarray(split["image"][valid])))
    logits = np.asarray(output.logits, np.float64)
    depth = np.asarray(output.usage[0].tokens).sum(0)
    gmacs = np.asarray(model.gmacs(output), np.float64)
    live = np.asarray(output.usage[0].tokens).mean((0, 2))
    top1 = top5 = nats = 0.0
    for row, label in zip(logits, labels, strict=True):
        better = sum(value > row[label] for value in row)
        top1 += better < 1
        top5 += better < 5
        nats += np.log(np.exp(row).sum()) - row[label]
    count = len(labels)
    return {
        "images": count,
        "top1": top1 / count,
        "top5": top5 / count,
        "cross_entropy": nats / count,
        "mean_depth": depth.mean(),
        "dropped_images": 0.0,
        "halted": 1 - depth.mean() / LAYERS,
        "gmacs": gmacs.mean(),
        "gmacs_std": gmacs.std(),
        "gmacs_dense": model.dense_gmacs(),
        "depth_histogram": [(depth == layer).mean() for layer in range(1, LAYERS + 1)],
        "class_mean_depth": of_classes(depth.mean(1), labels),
        "tokens_kept": live.mean(),
        "class_tokens_kept": of_classes(live, labels),
    }


@pytest.mark.parametrize(
    ("size", "devices"), [(10, 1), (16, 8), (40, 8)], ids=["10 on 1", "16 on 8", "40 on 8"]
)
def test_figures_are_exact_whatever_the_batch_and_the_devices(
    size, devices, model, params, split, steps, expected
):
    mesh, step = steps[devices]
    found = evaluate(step, params, batches(split, size), mesh, model=model)
    speed = found.pop("images_per_second")
    assert (speed is None) == (size >= IMAGES)  # of the first batch nothing can be said
    assert found.keys() == expected.keys()
    for name in ("images", "top1", "top5"):
        assert found[name] == expected[name], name
    for name in ("cross_entropy", "mean_depth", "halted", "gmacs", "gmacs_dense", "tokens_kept"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name
    assert found["gmacs_std"] == pytest.approx(expected["gmacs_std"], rel=1e-3)
    np.testing.assert_allclose(found["depth_histogram"], expected["depth_histogram"], rtol=1e-9)
    for name in ("class_mean_depth", "class_tokens_kept"):
        assert found[name][-1] is None
        assert found[name][:-1] == pytest.approx(expected[name][:-1])
    assert json.loads(json.dumps(found)) == found


def test_the_split_tells_right_from_wrong_and_deep_from_shallow(expected):
    assert 0 < expected["top1"] < expected["top5"] < 1
    assert min(expected["depth_histogram"]) > 0.02
    assert expected["gmacs_std"] > 0.01 * expected["gmacs_dense"]


def test_dense_execution_halts_nothing(model, params, split):
    mesh = make_mesh(devices=jax.devices()[:1])
    step = make_eval_step(model, mesh, execution="dense")
    found = evaluate(step, params, batches(split, 37), mesh, model=model)
    assert found["halted"] == 0
    assert found["depth_histogram"] == [0] * (LAYERS - 1) + [1]
    assert found["gmacs"] == pytest.approx(model.dense_gmacs(), rel=1e-6)
    assert found["gmacs_std"] == pytest.approx(0, abs=1e-6)


def test_a_model_that_has_lost_its_mind_scores_nothing(model, params, split, steps, caplog):
    mesh, step = steps[1]
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params)
    found = evaluate(step, broken, batches(split, 10), mesh, model=model)
    assert (found["top1"], found["top5"]) == (0, 0)
    assert np.isnan(found["cross_entropy"])
    assert found["images"] == 34
    said = "the model answers 34 of 34 images with numbers that are not finite"
    assert caplog.messages == [f"{said}."]
    with pytest.raises(UserError, match=f"{said}: use weights from before"):
        evaluate(step, broken, batches(split, 10), mesh, model=model, strict=True)
