"""Compacted execution: the same answers from live tokens only, and only those are computed."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import avit_jax
from avit_jax.execution.compact import COMPACT
from avit_jax.execution.dense import DENSE
from avit_jax.execution.plan import Plan
from avit_jax.methods.avit import synthetic as halting_profiles
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.types import Usage
from tests.execution.executed import counting, multiply_adds

ONE_DEVICE = make_mesh(devices=jax.devices()[:1])


def small_plan(tokens: int, **changes) -> Plan:
    plan = Plan(
        images=3, row_sizes=(8, 24), attention_images=2, lengths=(4, tokens), dense_images=2
    )
    return dataclasses.replace(plan, **changes)


def make(**overrides):
    sizes = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
    settings = {"gate_scale": 10.0, "gate_center": 30.0}
    return avit_jax.create_model(
        "avit_tiny_patch16_224", num_classes=5, method=settings, **{**sizes, **overrides}
    )


def scripted(model, depth):
    params = halting_profiles.scripted_params(model, model.init(jax.random.key(0)))
    return params, halting_profiles.scripted_images(model, depth)


@pytest.mark.parametrize("group", [3, 1], ids=["images are packed", "one by one"])
@settings(max_examples=25, deadline=None)
@example([[4] * 16] * 5)
@example([[4] * 16] * 4 + [[3] * 15 + [4]])
@given(st.lists(st.lists(st.integers(1, 4), min_size=16, max_size=16), min_size=5, max_size=5))
def test_any_pattern_of_halting_gives_the_masked_answer(group, depth):
    depth = np.array(depth)
    predict, params, apply = compiled(group)
    images = halting_profiles.scripted_images(make(), depth)
    output = predict(images)
    masked = apply(params, images)
    np.testing.assert_array_equal(output.usage[0].tokens, halting_profiles.tokens_of(make(), depth))
    np.testing.assert_allclose(output.logits, masked.logits, atol=1e-5)


@functools.cache
def compiled(group):
    model = make()
    params = halting_profiles.scripted_params(model, model.init(jax.random.key(0)))
    plan = small_plan(model.shape.num_tokens, images=group, lengths=(4, 10, 17))
    predict = model.compile(params, batch_size=5, plan=plan, mesh=ONE_DEVICE)
    return predict, params, jax.jit(model.apply)


@pytest.mark.parametrize(
    ("distilled", "first", "plan"),
    [
        (False, 1, {}),
        (True, 2, {"images": 5, "attention_images": 1, "row_sizes": (16,), "dense_images": 4}),
        (False, 1, {"images": 1, "lengths": (4, 10, 17)}),
        pytest.param(True, 2, {"images": 1}, marks=pytest.mark.slow),
    ],
)
def test_counted_multiply_adds_are_those_executed(distilled, first, plan):
    """Where the first token halts in layer `first`, so that layers up to there run as a whole."""
    model = make(distilled=distilled, depth=first + 2)
    rng = np.random.default_rng(0)
    params, images = scripted(model, rng.integers(first, first + 3, (5, 16)))
    plan = small_plan(model.shape.num_tokens, **plan)
    program = model.program(COMPACT, plan)
    exists = np.ones(5, bool)
    arguments = params, images, exists
    run_adds, output = counting(program, *arguments)(*arguments)
    counted = model.compact_gmacs((Usage(tokens=output.usage[0].tokens),), plan)
    assert counted * 1e9 == pytest.approx(run_adds)
    masked = jax.jit(model.apply)(params, images)
    needed = costs.inference_gmacs(model.shape, masked.usage[0]).sum() * 1e9
    assert needed <= run_adds


@pytest.mark.parametrize("images", [5, 1], ids=["packed", "one by one"])
@pytest.mark.parametrize("first", ["cls_token", "dist_token"])
def test_either_of_two_prefix_tokens_may_halt_first(first, images):
    model = make(distilled=True)
    params, batch = scripted(model, np.random.default_rng(0).integers(2, 5, (5, 16)))
    params[first][:, :, 0] = halting_profiles.brightness(model, 1 / 2)
    plan = small_plan(model.shape.num_tokens, images=images)
    found = model.compile(params, batch_size=5, plan=plan, mesh=ONE_DEVICE)(batch)
    masked = jax.jit(model.apply)(params, batch)
    last = masked.usage[0].tokens[-1, :, :2]
    np.testing.assert_array_equal(last, [[first != "cls_token", first != "dist_token"]] * 5)
    np.testing.assert_allclose(found.logits, masked.logits, atol=1e-5)


@pytest.mark.parametrize("least", [2, 3], ids=["some halt in front of it", "none does"])
def test_where_nothing_has_halted_the_last_block_runs_whole_too(least):
    model = make(depth=3)
    depth = np.random.default_rng(0).integers(least, 4, (5, 16))
    params, images = scripted(model, depth)
    plan = small_plan(model.shape.num_tokens, images=5, row_sizes=(16, 64), lengths=(4, 17))
    program = model.program(COMPACT, plan)
    arguments = params, images, np.ones(5, bool)
    run_adds, output = counting(program, *arguments)(*arguments)
    expected = jax.jit(model.apply)(params, images)
    np.testing.assert_allclose(output.logits, expected.logits, atol=1e-5)
    np.testing.assert_array_equal(output.usage[0].tokens, expected.usage[0].tokens)
    assert 5 * costs.dense_inference_gmacs(model.shape) * 1e9 == pytest.approx(run_adds)
    assert model.compact_gmacs(output.usage, plan) == pytest.approx(
        5 * costs.dense_inference_gmacs(model.shape)
    )


@pytest.mark.parametrize("distilled", [False, True])
def test_dense_execution_runs_what_is_counted_for_it(distilled):
    model = make(distilled=distilled)
    params = model.init(jax.random.key(0))
    plan = small_plan(model.shape.num_tokens, dense_images=2)
    program = model.program(DENSE, plan)
    images = np.zeros((4, 32, 32, 3), np.float32)
    run_adds = multiply_adds(program, params, images, np.ones(4, bool))
    assert costs.dense_inference_gmacs(model.shape) * 4e9 == pytest.approx(run_adds)


def test_groups_of_dense_execution_are_even():
    model = make()
    plan = small_plan(model.shape.num_tokens, dense_images=4)
    program = model.program(DENSE, plan)
    images = np.zeros((5, 32, 32, 3), np.float32)
    params = model.init(jax.random.key(0))
    run_adds = multiply_adds(program, params, images, np.ones(5, bool))
    # Five images in two groups of three, not of four.
    assert costs.dense_inference_gmacs(model.shape) * 6e9 == pytest.approx(run_adds, rel=0.01)


@pytest.mark.parametrize("group", [3, 1])
def test_an_image_that_is_not_finite_spoils_its_own_answer_only(group):
    depth = np.random.default_rng(0).integers(1, 5, (5, 16))
    predict, params, apply = compiled(group)
    images = halting_profiles.scripted_images(make(), depth)
    images[2] = np.nan
    answer = np.asarray(predict(images).logits)
    expected = np.asarray(apply(params, images).logits)
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(answer[others], expected[others], atol=1e-5)


def test_images_that_only_fill_up_cost_nothing():
    model = make()
    params, images = scripted(model, np.full((3, 16), 4))
    plan = small_plan(model.shape.num_tokens)
    program = model.program(COMPACT, plan)
    exists = np.array([True, False, False])
    counted = counting(program, params, images, exists)
    one, output = counted(params, images, exists)
    all_, _ = counted(params, images, np.ones(3, bool))
    fixed = costs.embedding(model.shape) + costs.readout(model.shape)
    assert one - 3 * fixed < 0.5 * (all_ - 3 * fixed)
    assert not output.usage[0].tokens[:, 1:].any()


@pytest.mark.parametrize("group", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_a_finished_image_leaves_with_all_its_tokens(group):
    model = make()
    params, images = scripted(model, np.full((2, 16), 4))
    # A class token with a score of 1/2 halts after two of four layers.
    params["cls_token"][:, :, 0] = model.settings.gate_center / model.settings.gate_scale
    plan = small_plan(model.shape.num_tokens, images=group)
    program = model.program(COMPACT, plan)
    arguments = params, images, np.ones(2, bool)
    run_adds, output = counting(program, *arguments)(*arguments)
    assert output.usage[0].tokens[:2].all() and not output.usage[0].tokens[2:].any()
    masked = jax.jit(model.apply)(params, images)
    np.testing.assert_allclose(output.logits, masked.logits, atol=1e-5)
    assert model.compact_gmacs(output.usage, plan) * 1e9 == pytest.approx(run_adds)


@pytest.mark.slow
def test_bfloat16_compact_is_as_close_to_masked_as_bfloat16_allows():
    model = make(dtype="bfloat16")
    params, images = scripted(model, np.random.default_rng(0).integers(1, 5, (5, 16)))
    plan = small_plan(model.shape.num_tokens)
    compact = model.compile(params, batch_size=5, plan=plan, mesh=ONE_DEVICE)(images)
    masked = jax.jit(model.apply)(params, images)
    np.testing.assert_array_equal(compact.usage[0].tokens, masked.usage[0].tokens)
    scale = np.abs(masked.logits).max()
    np.testing.assert_allclose(compact.logits, masked.logits, atol=0.03 * scale)


def test_devices_share_the_images_without_changing_answers():
    model = make()
    depth = np.random.default_rng(1).integers(1, 5, (8, 16))
    params, images = scripted(model, depth)
    plan = small_plan(model.shape.num_tokens, images=2)
    one, eight = (
        model.compile(params, batch_size=8, plan=plan, mesh=mesh)
        for mesh in (ONE_DEVICE, make_mesh())
    )
    np.testing.assert_allclose(one(images).logits, eight(images).logits, atol=1e-5)
    np.testing.assert_array_equal(one(images).usage[0].tokens, eight(images).usage[0].tokens)
    text = eight._program.as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "permute("))
