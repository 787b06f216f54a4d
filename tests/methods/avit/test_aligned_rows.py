"""Static and dense execution by the kernels for TPUs, interpreted: those of plain rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.benchmark import profiles
from avit_jax.execution.dense import DENSE
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.static import STATIC
from avit_jax.models import costs
from avit_jax.models.image_rows import ALIGN
from avit_jax.runtime.device_mesh import make_mesh

ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
SIZES = {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}


@pytest.fixture(scope="module")
def small():
    model = avit_jax.create_model("avit_tiny_patch16_224", **SIZES, num_classes=7)
    params, images = profiles.script(model, "half", 3)
    return model, params, images, jax.jit(model.apply)(params, images)


def whole_tiles(usage):
    counts = np.asarray(usage[0].tokens).sum(-1)
    return tuple(int(rows) for rows in (-(-counts // ALIGN) * ALIGN).sum(1))


def in_place(model, rows, batch_size=3):
    """The program for TPUs, whose kernels are interpreted here."""
    plan = model.default_plan(batch_size)
    plan = dataclasses.replace(plan, static_rows=rows, ragged_attention=True)
    return model.program(STATIC, plan)


def test_rows_that_stay_where_they_lie_give_the_answers_and_gradients_of_masked_execution(small):
    model, params, images, expected = small
    rows = whole_tiles(expected.usage)
    assert rows[0] > rows[1]
    rows = (rows[0], rows[0], rows[2])  # masked where they lie, and then moved
    run = in_place(model, rows)

    def ours(params):
        answer = run(params, images, jnp.ones(3, bool))
        return (answer.logits**2).mean(), answer

    def theirs(params):
        return (model.apply(params, images).logits ** 2).mean()

    gradients, answer = jax.jit(jax.grad(ours, has_aux=True))(params)
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    np.testing.assert_array_equal(answer.usage[0].tokens, expected.usage[0].tokens)
    assert answer.fits.all()
    wanted = jax.jit(jax.grad(theirs))(params)
    for found, leaf in zip(*map(jax.tree.leaves, (gradients, wanted)), strict=True):
        np.testing.assert_allclose(found, leaf, atol=2e-6 * float(np.abs(leaf).max() + 1e-9))


@pytest.mark.slow
def test_a_tile_too_few_is_noticed(small):
    model, params, images, expected = small
    first, second, last = whole_tiles(expected.usage)
    rows = (first, second, last - ALIGN)
    answer = jax.jit(in_place(model, rows))(params, images, jnp.ones(3, bool))
    assert not answer.fits.any()


def test_rows_for_tpus_are_whole_tiles_of_every_image(small):
    model, params, _, expected = small
    plan = model.default_plan(3, platform="tpu")
    assert plan.ragged_attention and not model.default_plan(3, platform="gpu").ragged_attention
    plan = STATIC.sized(model, expected.usage, plan, 3)
    assert all(rows % ALIGN == 0 for rows in plan.static_rows)
    assert np.all(np.asarray(plan.static_rows) >= whole_tiles(expected.usage))
    tight = dataclasses.replace(plan, static_rows=whole_tiles(expected.usage))
    needed = costs.inference_gmacs(model.shape, expected.usage[0]).sum()
    ran = [executed_gmacs(STATIC, model, expected.usage, one) for one in (tight, plan)]
    assert needed < ran[0] <= ran[1]
    assert ran[1] <= executed_gmacs(DENSE, model, expected.usage, plan)
    with pytest.raises(ValueError, match="ragged attention, but its kernel is for TPUs"):
        model.compile(params, batch_size=3, execution="static", plan=plan, mesh=ONE_DEVICE)


@pytest.mark.slow
def test_a_dense_program_for_tpus_answers_the_same(small):
    model, params, images, _ = small
    plan = model.default_plan(3)
    programs = (plan, dataclasses.replace(plan, ragged_attention=True))
    exists = jnp.ones(3, bool)
    here, there = (jax.jit(model.program(DENSE, one))(params, images, exists) for one in programs)
    np.testing.assert_allclose(there.logits, here.logits, atol=1e-5)
