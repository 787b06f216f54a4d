"""Models of several stages: usage and costs for each, an answer for each exit, early leavers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import create_model
from avit_jax.benchmark.cases import Case
from avit_jax.benchmark.other_process import OtherProcesses
from avit_jax.benchmark.run import run_case
from avit_jax.benchmark.scale import completed
from avit_jax.config.defaults import Settings
from avit_jax.config.inference import Benchmark
from avit_jax.evaluation.evaluate import summarise, sums
from avit_jax.execution.execution import executed_gmacs
from avit_jax.experiment import Experiment
from avit_jax.losses import classification
from avit_jax.methods.per_image import finest_stage, num_layers, per_image
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training.step import loss_function
from avit_jax.viz import depth_maps

BATCH = 6


@pytest.fixture(scope="module")
def case():
    """A cascade whose threshold lets half of the images leave, and what it says about them."""
    model = create_model("tests.methods.two_exits:TWO_EXITS")
    params = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3))
    first = model.apply(params, images).exits[0]
    middle = float(jnp.median(jax.nn.softmax(first).max(-1)))
    model = dataclasses.replace(
        model, settings=dataclasses.replace(model.settings, confidence=middle)
    )
    output = jax.jit(model.apply)(params, images)
    left = ~np.asarray(output.usage[1].tokens).any((0, 2))
    assert 0 < left.sum() < BATCH
    return model, params, images, output, left


def test_an_image_that_left_has_nothing_live_later_and_costs_nothing_there(case):
    model, _, _, output, left = case
    stages = zip(model.stages, output.usage, strict=True)
    coarse, fine = (costs.gmacs(shape, used) for shape, used in stages)
    np.testing.assert_allclose(model.gmacs(output), coarse + np.where(left, 0, fine), rtol=1e-6)
    assert model.dense_gmacs() == pytest.approx(sum(map(costs.dense_gmacs, model.stages)))


def test_the_answer_is_that_of_the_exit_an_image_left_by(case):
    model, _, _, output, left = case
    seen = per_image(model, output)
    np.testing.assert_array_equal(seen.exit, np.where(left, 0, 1))
    chosen = np.asarray(output.exits)[np.asarray(seen.exit), np.arange(BATCH)]
    np.testing.assert_array_equal(output.logits, chosen)


def test_depths_add_up_over_the_stages(case):
    model, _, _, output, left = case
    assert num_layers(model) == 4
    depth = np.asarray(per_image(model, output).token_depth)
    assert model.shape.num_tokens < finest_stage(model).num_tokens
    assert depth.shape == (BATCH, finest_stage(model).num_tokens)
    np.testing.assert_array_equal(depth, np.where(left, 2, 4)[:, None] * np.ones_like(depth))


def test_every_exit_is_trained(case):
    model, params, images, *_ = case
    targets = classification.soft_targets(jnp.arange(BATCH), 10)
    loss, (logged, _) = loss_function(model)(params, images, targets, jax.random.key(0), 1.0)
    exits = model.apply(params, images).exits
    expected = sum(classification.cross_entropy(logits, targets).mean() for logits in exits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert logged["task_loss"] == loss


@pytest.mark.parametrize("execution", ["masked", "compact", "dense"])
def test_compiled_programs_keep_stages_and_exits_apart(case, execution):
    model, params, images, output, _ = case
    if execution == "dense":
        output = model.apply(params, images, execution="dense")
    plan = dataclasses.replace(model.default_plan(4), images=2)  # groups that are joined again
    mesh = make_mesh(devices=jax.devices()[:1])
    predict = model.compile(params, batch_size=7, execution=execution, plan=plan, mesh=mesh)
    found = predict(np.asarray(images))
    np.testing.assert_allclose(found.exits, output.exits, atol=1e-5)
    np.testing.assert_allclose(found.logits, output.logits, atol=1e-5)
    for ours, theirs in zip(found.usage, output.usage, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    executed = executed_gmacs(predict.execution, model, found.usage, plan, devices=1)
    if execution != "compact":
        assert executed == pytest.approx(BATCH * model.dense_gmacs())


def test_evaluation_sums_over_stages(case):
    model, _, _, output, left = case
    totals = sums(model, output, jnp.zeros(BATCH, jnp.int32), jnp.ones(BATCH, bool))
    assert float(totals["mean_depth"]) == pytest.approx(np.where(left, 2, 4).sum())
    summary = summarise({name: np.asarray(total) for name, total in totals.items()}, model)
    layers = np.arange(1, num_layers(model) + 1)
    assert summary["depth_histogram"] @ layers == pytest.approx(summary["mean_depth"])
    assert sum(summary["depth_histogram"]) == pytest.approx(1.0)
    right = (np.asarray(output.exits).argmax(-1) == 0).mean(1)  # all labels are 0
    assert summary["exit_top1"] == pytest.approx(right.tolist())
    assert summary["exit_top1"][-1] == pytest.approx(summary["top1"])
    assert summary["exit_share"] == pytest.approx([left.mean(), 1 - left.mean()])
    saved = (model.dense_gmacs() - np.asarray(model.gmacs(output))).sum()
    assert float(totals["saved_gmacs"]) == pytest.approx(saved, rel=1e-4)


def test_a_benchmark_counts_all_stages_and_nothing_for_images_that_left(case):
    model, params, images, *_ = case
    timed = np.arange(8) % BATCH
    plan = model.default_plan(1)
    raced = Case("real", model, params, np.asarray(images)[timed], np.arange(8), plan)
    chosen = completed(Benchmark(executions=("dense",), turns=1), "cpu")
    found = run_case(raced, Settings(), chosen, OtherProcesses())
    left = case[-1][timed]
    coarse, fine = map(costs.dense_inference_gmacs, model.stages)
    assert found["gmacs_dense_needed"] == pytest.approx(coarse + fine)
    assert found["gmacs_needed"] == pytest.approx(coarse + fine * (1 - left.mean()))
    ideal = found["gmacs_dense_needed"] / found["gmacs_needed"]
    assert found["ideal_speedup"] == pytest.approx(ideal)
    assert found["executions"]["dense"]["gmacs_executed"] == pytest.approx(model.dense_gmacs())


def test_pictures_have_the_grid_of_the_finest_stage(case, tmp_path, monkeypatch):
    model, params, *_ = case
    config = configs.debug(configs.base(model="tests.methods.two_exits:TWO_EXITS"))
    config.eval.batch_size = 8
    monkeypatch.setattr(depth_maps, "MEASURED", 8)
    drawn = []
    monkeypatch.setattr(depth_maps, "draw", lambda images, maps, *_, **__: drawn.append(maps))
    depth_maps.write(Experiment(config, tmp_path), params, tmp_path / "maps.png")
    assert drawn[0].shape == (8, 8, 8) and finest_stage(model).grid == 8
