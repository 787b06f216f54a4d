"""Evaluation counts every valid image once, against a plain loop over the same images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.data.mix import normalise
from avit_jax.evaluation import report
from avit_jax.evaluation.evaluate import evaluate, make_eval_step, summarise
from avit_jax.models import skippable_parts
from avit_jax.runtime.device_mesh import make_mesh

IMAGES, CLASSES, LAYERS = 37, 7, 3


@pytest.fixture(scope="module")
def model():
    return create_model(
        "avit_micro_patch4_32",
        method={"gate_scale": 3.0, "gate_center": 0.5},
        patch_size=8,
        embed_dim=24,
        depth=LAYERS,
        num_heads=2,
        num_classes=CLASSES,
    )


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
def split():
    """37 images of 6 of the 7 classes; the last class has none, and three could not be read."""
    generator = np.random.default_rng(1)
    valid = np.ones(IMAGES, bool)
    valid[[3, 17, 36]] = False
    return {
        "image": generator.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8),
        "label": generator.integers(0, CLASSES - 1, IMAGES, dtype=np.int32),
        "valid": valid,
    }


def batches(split, size: int):
    """The split in batches; the last is filled up with rows that look like images."""
    for start in range(0, IMAGES, size):
        part = {name: rows[start : start + size] for name, rows in split.items()}
        missing = size - len(part["label"])
        filling = {
            "image": np.full((missing, 32, 32, 3), 200, np.uint8),
            "label": np.zeros(missing, np.int32),
            "valid": np.zeros(missing, bool),
        }
        yield {name: np.concatenate([part[name], filling[name]]) for name in part}


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


def of_classes(values, labels) -> list[float | None]:
    """Mean over the images of each class."""
    return [
        float(values[labels == label].mean()) if (labels == label).any() else None
        for label in range(CLASSES)
    ]


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


def test_a_model_that_has_lost_its_mind_scores_nothing(model, params, split, steps):
    mesh, step = steps[1]
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params)
    found = evaluate(step, broken, batches(split, 10), mesh, model=model)
    assert (found["top1"], found["top5"]) == (0, 0)
    assert np.isnan(found["cross_entropy"])
    assert found["images"] == 34


def totals(**changes) -> dict[str, np.ndarray]:
    """Sums of three images, two of class 0 and one of class 2, on a model of three layers."""
    sums = {
        "count": 3,
        "top1": 1.0,
        "top5": 3.0,
        "cross_entropy": 6.0,
        "saved_gmacs": 0.0,
        "saved_gmacs_squared": 0.0,
        "mean_depth": 6.0,
        "dropped_images": 0.0,
        "depth_histogram": np.array([12.75, 12.75, 25.5]),  # 51 tokens
        "class_count": np.array([2.0, 0, 1, 0, 0, 0, 0]),
        "class_depth": np.array([5.0, 0, 1, 0, 0, 0, 0]),
    }
    return {name: np.asarray(value, np.float64) for name, value in (sums | changes).items()}


def test_a_class_without_an_image_has_no_depth(model):
    found = summarise(totals(), model)
    assert found["class_mean_depth"] == [2.5, None, 1.0, None, None, None, None]
    assert (found["top1"], found["top5"], found["cross_entropy"]) == (1 / 3, 1, 2)
    assert (found["mean_depth"], found["halted"]) == (2, pytest.approx(1 / 3))
    assert found["depth_histogram"] == [0.25, 0.25, 0.5]


def test_rounding_never_makes_the_spread_imaginary(model):
    found = summarise(totals(saved_gmacs=3.0, saved_gmacs_squared=3.0 - 1e-9), model)
    assert found["gmacs_std"] == 0
    assert found["gmacs"] == pytest.approx(model.dense_gmacs() - 1)


def test_tokens_that_went_through_no_layer_are_missing_in_the_histogram(model):
    found = summarise(totals(depth_histogram=np.array([0, 0, 25.5])), model)
    assert found["depth_histogram"] == [0, 0, 0.5]
    rows = dict(report.summary_rows(summary_of(found)))
    assert rows["share of tokens by depth"] == "0: 50%  1: 0%  2: 0%  3: 50%"


def summary_of(results: dict) -> dict:
    """What a run reports of an evaluation."""
    others = {"top1_dense": 1.0, "twin": "not trained", "images_per_second": None}
    return {**results, **others}


@pytest.fixture(scope="module")
def choosing():
    """A method with heads and halves to choose from, and weights with which it does."""
    model = create_model(
        "adavit_deit_micro_patch4_32",
        patch_size=8,
        embed_dim=24,
        depth=LAYERS,
        num_heads=2,
        num_classes=CLASSES,
    )
    generator = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.3, leaf.shape), jnp.float32),
        model.abstract_params(),
    )
    return model, params


def test_heads_and_halves_are_counted_where_a_method_chooses_them(choosing, split):
    model, params = choosing
    mesh = make_mesh(devices=jax.devices()[:1])
    found = evaluate(make_eval_step(model, mesh), params, batches(split, 10), mesh, model=model)
    valid = split["valid"]
    images = normalise(jnp.asarray(split["image"][valid]))
    shares = jax.device_get(skippable_parts.shares(jax.jit(model.apply)(params, images).usage))
    assert shares.keys() == set(skippable_parts.PARTS)
    for name, share in shares.items():
        assert 0.1 < share.mean() < 0.95, name
        assert found[f"{name}_kept"] == pytest.approx(share.mean(), rel=1e-5)
        by_class = of_classes(share, split["label"][valid])
        assert found[f"class_{name}_kept"][:-1] == pytest.approx(by_class[:-1], rel=1e-5)
        assert found[f"class_{name}_kept"][-1] is None
    rows = dict(report.summary_rows(summary_of(found)))
    assert rows["heads run"] == f"{found['heads_kept']:.1%}"
    assert rows["halves run"] == f"{found['halves_kept']:.1%}"
    assert f"heads run {found['heads_kept']:.1%}" in report.eval_line(3, found, None)
    header, lines = report.class_columns(found, [str(label) for label in range(CLASSES)])
    assert header == ["class", "mean depth", "heads run", "halves run"]
    assert lines[0][2] == f"{found['class_heads_kept'][0]:.1%}"
    assert lines[-1][1:] == ["no image"] * 3


def test_where_there_is_nothing_but_tokens_nothing_else_is_reported(model):
    rows = dict(report.summary_rows(summary_of(summarise(totals(), model))))
    assert "token-layers skipped" in rows
    assert not [name for name in rows if "heads" in name or "halves" in name]
