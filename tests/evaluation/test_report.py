"""What is said of sums over a split: shares, means, and nothing where there is nothing."""

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
from tests.evaluation.digit_split import CLASSES, LAYERS, batches, of_classes


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
