"""Static execution: the answers and gradients of masked execution, whatever finds a place."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.benchmark import profiles
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.static import STATIC
from avit_jax.methods.avit import live_rows
from avit_jax.models import costs, functional
from avit_jax.runtime.device_mesh import make_mesh

BATCH = 6
SIZES = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3}
NAMES = ("avit_tiny_patch16_224", "avit_tiny_distilled_patch16_224")
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])


def create(name=NAMES[0], **overrides):
    return avit_jax.create_model(name, **{**SIZES, "num_classes": 7, **overrides})


def enough(usage):
    """Rows of each layer that just hold a batch."""
    counts = np.asarray(usage[0].tokens).sum((1, 2))
    return tuple(int(rows) for rows in np.maximum(counts, 1))


def static(model, params, rows, *, batch_size=BATCH, mesh=ONE_DEVICE):
    plan = dataclasses.replace(model.default_plan(batch_size), static_rows=rows)
    return model.compile(params, batch_size=batch_size, execution="static", plan=plan, mesh=mesh)


@pytest.fixture(scope="module")
def case():
    model = create()
    params, images = profiles.script(model, "half", BATCH)
    return model, params, images, jax.jit(model.apply)(params, images)


@pytest.mark.parametrize("name", NAMES)
def test_just_enough_rows_give_the_answers_of_masked_execution(name):
    model = create(name)
    params, images = profiles.script(model, "half", BATCH)
    expected = jax.jit(model.apply)(params, images)
    predict = static(model, params, enough(expected.usage))
    answer = predict(images)
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    np.testing.assert_array_equal(answer.usage[0].tokens, expected.usage[0].tokens)
    assert predict.overflows == 0


def test_one_row_too_few_is_noticed_and_answered_all_the_same(case):
    model, params, images, expected = case
    rows = enough(expected.usage)
    layer = next(i for i in range(1, 4) if rows[i] < rows[i - 1])
    rows = (*rows[:layer], *(min(r, rows[layer] - 1) for r in rows[layer:]))
    predict = static(model, params, rows)
    np.testing.assert_allclose(predict(images).logits, expected.logits, atol=1e-5)
    assert predict.overflows == 1


def test_hard_images_after_easy_ones_are_answered_exactly(case):
    model, params, images, expected = case
    predict = model.compile(params, batch_size=BATCH, execution="static", mesh=ONE_DEVICE)
    np.testing.assert_allclose(predict(images).logits, expected.logits, atol=1e-5)
    assert predict.overflows == 0 and predict.plan.static_rows is not None
    _, hard = profiles.script(model, "none", BATCH)
    wanted = jax.jit(model.apply)(params, hard)
    assert np.asarray(wanted.usage[0].tokens).sum() > np.asarray(expected.usage[0].tokens).sum()
    np.testing.assert_allclose(predict(hard).logits, wanted.logits, atol=1e-5)
    assert predict.overflows == 1


def test_layers_with_the_same_capacity_leave_halted_tokens_where_they_are(case):
    model, params, images, expected = case
    first, *_, last = enough(expected.usage)
    answer = static(model, params, (first, first, first, last))(images)
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)


def test_images_that_only_fill_up_take_no_rows(case):
    model, params, images, expected = case
    few = jax.tree.map(lambda tokens: tokens[:, :2], expected.usage)
    rows = (BATCH * 17, *enough(few)[1:])
    predict = static(model, params, rows)
    np.testing.assert_allclose(predict(images[:2]).logits, expected.logits[:2], atol=1e-5)
    assert predict.overflows == 0


def test_a_batch_that_is_mostly_filled_up_is_not_measured(case):
    model, params, images, expected = case
    predict = model.compile(params, batch_size=BATCH, execution="static", mesh=ONE_DEVICE)
    np.testing.assert_allclose(predict(images[:2]).logits, expected.logits[:2], atol=1e-5)
    assert not predict.has_sizes
    predict(images[:3])
    assert predict.has_sizes


def test_every_device_has_rows_of_its_own(case):
    model, params, images, expected = case
    mesh = make_mesh(devices=jax.devices()[:2])
    halves = [jax.tree.map(lambda t, i=i: t[:, i : i + 3], expected.usage) for i in (0, 3)]
    rows = tuple(map(max, *map(enough, halves)))
    predict = static(model, params, rows, mesh=mesh)
    np.testing.assert_allclose(predict(images).logits, expected.logits, atol=1e-5)
    assert predict.overflows == 0


def test_gradients_are_those_of_masked_execution(case):
    model, params, images, expected = case
    rows = enough(expected.usage)

    @jax.jit
    @jax.grad
    def ours(params):
        network = functional.bind(model.build, params)
        return (model.static(network, images, jnp.ones(BATCH, bool), rows).logits ** 2).mean()

    @jax.jit
    @jax.grad
    def theirs(params):
        return (model.apply(params, images).logits ** 2).mean()

    for found, wanted in zip(*map(jax.tree.leaves, (ours(params), theirs(params))), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6 * float(np.abs(wanted).max() + 1e-9))


def test_tokens_of_finished_images_go_on_where_somebody_asks_for_them(case):
    model, params, images, expected = case
    state = np.asarray(expected.aux["mask"])[:-1]  # also behind the class token
    halted_first = jax.tree.map(np.array, params)
    halted_first["cls_token"][:, :, 0] = 100.0  # halts behind the first layer
    masked = jax.jit(model.apply)(halted_first, images)
    network = functional.bind(model.build, halted_first)
    ran = live_rows.run(
        model.shape,
        network.blocks,
        network.embed(images, dtype=jnp.float32),
        jnp.ones(BATCH, bool),
        (BATCH * 17,) * 4,
        model.rules(network, images),
        finished_leave=False,
    )
    np.testing.assert_array_equal(ran.live, masked.aux["mask"][:-1])
    assert ran.live[1:].any() and not masked.usage[0].tokens[1:].any()
    np.testing.assert_allclose(ran.weights, masked.aux["weights"], atol=1e-6)
    np.testing.assert_allclose(ran.state.ponder, masked.aux["ponder"], atol=1e-5)
    assert state.any()


def test_no_loop_and_no_branch_depends_on_data(case):
    model, _, images, expected = case
    plan = dataclasses.replace(model.default_plan(BATCH), static_rows=enough(expected.usage))
    traced = jax.make_jaxpr(STATIC.program(model, plan))(
        model.abstract_params(), images, jnp.ones(BATCH, bool)
    )
    assert not re.search(r"\b(while|cond|scan)\[", str(traced))


@pytest.mark.slow
def test_bfloat16_halts_where_float32_does_and_runs_the_share_that_was_asked_for():
    shares = {}
    for dtype in ("float32", "bfloat16"):
        model = create(dtype=dtype, method={"gate_center": 75.0})
        params, images = profiles.script(model, "half", 16)
        output = jax.jit(model.apply)(params, images)
        shares[dtype] = float(model.gmacs(output).mean()) / model.dense_gmacs()
        answer = model.compile(params, batch_size=16, execution="static", mesh=ONE_DEVICE)(images)
        np.testing.assert_array_equal(answer.usage[0].tokens, output.usage[0].tokens)
    assert shares["bfloat16"] == pytest.approx(shares["float32"], abs=0.01)


def test_rows_that_cannot_be_are_refused(case):
    model, params, *_ = case
    for rows, sentence in (
        ((102, 50), "2 static_rows, but this model wants 4"),
        ((102, 50, 60, 10), "may not rise"),
        ((102.5, 50, 40, 10), "write whole numbers"),
        ((), "write whole numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            static(model, params, rows)


@pytest.mark.slow
def test_halted_tokens_that_lie_where_they_were_do_not_grow(case):
    """A class token that halts at once while the distillation token goes on, among dead rows."""
    model, unlike, unit, grown = create(NAMES[1]), 5, 0, 7
    params, images = profiles.script(model, "none", BATCH)
    params["cls_token"][:, :, 0] = 100.0  # halts behind the first layer
    params["cls_token"][:, :, unlike] = 300.0
    params["pos_embed"][:, :, unlike] = 0.0
    # A hidden unit in layers 2 and 3 that only such a token wakes, beyond all numbers.
    blocks = params["blocks"]
    for layer in (1, 2):
        blocks["norm2"]["scale"][layer], blocks["norm2"]["bias"][layer] = 1.0, 0.0
        blocks["mlp"]["fc1"]["kernel"][layer, :, unit] = 0.0
        blocks["mlp"]["fc1"]["kernel"][layer, unlike, unit] = 20.0
        blocks["mlp"]["fc1"]["bias"][layer, unit] = -75.0
        blocks["mlp"]["fc2"]["kernel"][layer, unit, :] = 0.0
        blocks["mlp"]["fc2"]["kernel"][layer, unit, grown] = 1e38
    masked = jax.jit(model.apply)(params, images)
    assert np.isfinite(masked.logits).all()
    everything = (BATCH * 18,) * 4

    def logits(params):
        network = functional.bind(model.build, params)
        return model.static(network, images, jnp.ones(BATCH, bool), everything).logits

    np.testing.assert_allclose(jax.jit(logits)(params), masked.logits, atol=1e-5)
    gradients = jax.jit(jax.grad(lambda params: (logits(params) ** 2).mean()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_executed_work_is_at_least_what_is_needed_and_grows_with_the_rows(case):
    model, _, _, expected = case
    plan = dataclasses.replace(model.default_plan(BATCH), static_rows=enough(expected.usage))
    needed = costs.inference_gmacs(model.shape, expected.usage[0]).sum()
    tight = executed_gmacs(STATIC, model, expected.usage, plan)
    plan = dataclasses.replace(plan, static_rows=(BATCH * 17,) * 4)
    assert needed <= tight < executed_gmacs(STATIC, model, expected.usage, plan)
