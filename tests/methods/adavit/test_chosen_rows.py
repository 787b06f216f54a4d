"""Static execution of chosen tokens, heads and halves: the answers of masked execution."""

import dataclasses
import functools
import itertools
import re

import jax
import numpy as np
import pytest

from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.static import STATIC
from avit_jax.methods.adavit import synthetic
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from tests.execution.executed import multiply_adds
from tests.execution.policies import DEPTH, images_of, make

BATCH = 8
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
# A model, and the share of its work that is kept: every head effect, kinds that are missing, both
# backbones.
CASES = {
    "channels, distilled": ({"distilled": True}, 0.7),
    "hidden units that heads do not divide, T2T": (
        {"backbone": "t2t", "method": {"head_effect": "hidden"}, "mlp_ratio": 20 / 12},
        0.95,
    ),
    "attention, every token in the MLP": (
        {"method": {"head_effect": "attention", "every_token_in_mlp": True}},
        0.7,
    ),
    "tokens alone": ({"method": {"heads": False, "layers": False, "token_start_layer": 1}}, 0.8),
    "heads and halves": ({"method": {"tokens": False}}, 0.8),
}


@functools.cache
def case_of(name):
    """A model, weights, images that differ in what they keep, and what masked execution answers."""
    sizes, share = CASES[name]
    model = make(**sizes)
    contrast = np.linspace(0.3, 2.0, BATCH, dtype=np.float32)[:, None, None, None]
    images = images_of(model, BATCH) * contrast + contrast[::-1]
    params = synthetic.scripted_params(model, share, images)
    return model, params, images, jax.jit(model.apply)(params, images)


@pytest.fixture(scope="module")
def case():
    return case_of("channels, distilled")


def enough(model, usage):
    """Rows of each half that just hold a batch."""
    return tuple(int(rows) for rows in np.maximum(model.static_work(usage).sum(1), 1))


def plan_of(model, rows):
    return dataclasses.replace(model.default_plan(BATCH), static_rows=rows)


def static(model, params, rows, *, mesh=ONE_DEVICE):
    plan = None if rows is None else plan_of(model, rows)
    return model.compile(params, batch_size=BATCH, execution="static", plan=plan, mesh=mesh)


def check(found, expected, count=BATCH):
    np.testing.assert_allclose(found.logits, expected.logits[:count], atol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (found.usage, expected.usage)), strict=True):
        np.testing.assert_array_equal(ours, theirs[:, :count])


@pytest.mark.parametrize(
    "name",
    [
        "channels, distilled",
        "attention, every token in the MLP",
        "tokens alone",
        pytest.param("hidden units that heads do not divide, T2T", marks=pytest.mark.slow),
        pytest.param("heads and halves", marks=pytest.mark.slow),
    ],
)
def test_just_enough_rows_give_the_answers_of_masked_execution(name):
    model, params, images, expected = case_of(name)
    assert (expected.aux["margin"] > 1e-4).all()
    rows = enough(model, expected.usage)
    assert any(0 < some < BATCH * model.shape.num_tokens for some in rows[2:5])
    predict = static(model, params, rows)
    check(predict(images), expected)
    assert predict.overflows == 0


def test_buffers_of_the_sizes_tested_hold_little_and_rise(case):
    model, _, _, expected = case
    rows = enough(model, expected.usage)
    assert all(some < 0.9 * BATCH * model.shape.num_tokens for some in rows)
    assert any(later > earlier for earlier, later in itertools.pairwise(rows))


@pytest.mark.parametrize(
    "part",
    [2, 3, *(pytest.param(part, marks=pytest.mark.slow) for part in range(4, 2 * DEPTH))],
)
def test_one_row_too_few_is_noticed_in_every_half(case, part):
    model, params, images, expected = case
    rows = enough(model, expected.usage)
    rows = (*rows[:part], rows[part] - 1, *rows[part + 1 :])
    predict = static(model, params, rows)
    check(predict(images), expected)
    assert predict.overflows == 1


def test_a_half_that_has_rows_for_everything_runs_whole(case):
    model, params, images, expected = case
    rows = enough(model, expected.usage)
    everything = BATCH * model.shape.num_tokens
    for whole in (rows[:2] + (everything,) * 3 + rows[5:], (everything,) * len(rows)):
        predict = static(model, params, whole)
        check(predict(images), expected)
        assert predict.overflows == 0


def test_hard_images_after_easy_ones_are_answered_exactly(case):
    model, params, images, expected = case
    order = np.argsort(np.asarray(model.static_work(expected.usage)[2:5].sum(0)))
    easy, hard = (np.repeat(order[half], 2) for half in (slice(4), slice(4, 8)))
    predict = static(model, params, None)
    np.testing.assert_allclose(predict(images[easy]).logits, expected.logits[easy], atol=1e-5)
    assert predict.overflows == 0 and len(predict.plan.static_rows) == 2 * DEPTH
    np.testing.assert_allclose(predict(images[hard]).logits, expected.logits[hard], atol=1e-5)
    assert predict.overflows == 1


def test_images_that_only_fill_up_take_no_rows(case):
    model, params, images, expected = case
    few = jax.tree.map(lambda part: part[:, :3], expected.usage)
    predict = static(model, params, enough(model, few))
    check(predict(images[:3]), expected, count=3)
    assert predict.overflows == 0


def test_every_device_has_rows_of_its_own(case):
    model, params, images, expected = case
    halves = [jax.tree.map(lambda part, i=i: part[:, i : i + 4], expected.usage) for i in (0, 4)]
    rows = tuple(map(max, *(enough(model, half) for half in halves)))
    predict = static(model, params, rows, mesh=make_mesh(devices=jax.devices()[:2]))
    check(predict(images), expected)
    assert predict.overflows == 0


def test_an_image_that_is_not_finite_spoils_its_own_answer_only():
    model, params, images, expected = case_of("tokens alone")
    spoilt, others = np.array(images), np.arange(BATCH) != 2
    spoilt[2] = np.nan
    usage = jax.jit(model.apply)(params, spoilt).usage  # what cannot be decided runs on
    program = jax.jit(model.program(STATIC, plan_of(model, enough(model, usage))))
    found = program(params, spoilt, np.ones(BATCH, bool))
    assert found.fits.all() and not np.isfinite(found.logits[2]).any()
    np.testing.assert_allclose(found.logits[others], expected.logits[others], atol=1e-5)


def test_no_loop_and_no_branch_depends_on_data(case):
    model, _, images, expected = case
    program = model.program(STATIC, plan_of(model, enough(model, expected.usage)))
    traced = jax.make_jaxpr(program)(model.abstract_params(), images, np.ones(BATCH, bool))
    assert not re.search(r"\b(while|cond|scan)\[", str(traced))


@pytest.mark.parametrize("name", ["channels, distilled", "attention, every token in the MLP"])
def test_counted_multiply_adds_are_those_executed(name):
    model, params, images, expected = case_of(name)
    shape, rows = model.shape, enough(model, expected.usage)
    patches = shape.num_tokens - shape.num_prefix_tokens
    # The policies' own are not counted.
    deciding = BATCH * DEPTH * (shape.num_heads + 2 + patches) * shape.embed_dim
    everything = BATCH * shape.num_tokens
    for some in (rows, rows[:2] + (everything,) * 2 + rows[4:], (everything,) * len(rows)):
        plan = plan_of(model, some)
        ran = multiply_adds(model.program(STATIC, plan), params, images, np.ones(BATCH, bool))
        counted = executed_gmacs(STATIC, model, expected.usage, plan)
        assert counted * costs.GIGA == pytest.approx(ran - deciding)
    needed = costs.inference_gmacs(shape, expected.usage[0]).sum()
    assert needed <= executed_gmacs(STATIC, model, expected.usage, plan_of(model, rows))


def test_rows_of_another_model_are_refused(case):
    model, params, *_ = case
    with pytest.raises(ValueError, match="3 static_rows, but this model wants 6"):
        static(model, params, (50, 50, 50))
