"""The exported program of every method and execution."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import export

import avit_jax
from avit_jax.data.mix import normalise
from avit_jax.execution.executions import find
from avit_jax.execution.plan import Plan, default_plan
from avit_jax.export.program import export_program, named, plans_for
from tests.contract.tiny_models import PARAMS, case_of, tiny
from tests.export.conftest import PLAN

BATCH = 2


def images_of(model):
    size = model.shape.image_size
    return np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), np.uint8)


def exported(model, execution, plan):
    plans = plans_for(model, BATCH, plan)
    return export_program(model, execution=find(execution), batch_size=BATCH, plans=plans)


@pytest.mark.parametrize("method", PARAMS)
def test_every_method_can_be_exported_for_all_platforms(method):
    model = tiny(method)
    params, images = model.init(jax.random.key(0)), images_of(model)
    program = exported(model, "masked", None)
    assert program.platforms == ("cpu", "cuda", "tpu")
    read = export.deserialize(bytearray(program.serialize()))
    found = jax.jit(read.call)(named(params), images, np.ones(BATCH, bool))
    expected = jax.jit(model.apply)(params, normalise(images))
    np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-5)
    np.testing.assert_allclose(found["gmacs"], model.gmacs(expected), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["compact", "static"])
@pytest.mark.parametrize("method", ["dvt", "dvt of avit"])
def test_cascades_can_be_exported_with_images_that_leave(method, execution):
    model, params, _, _ = case_of(method)
    images = images_of(model)
    plans = plans_for(model, BATCH, PLAN)
    plans = {name: dataclasses.replace(plan, static_rows=(1,)) for name, plan in plans.items()}
    program = export_program(model, execution=find(execution), batch_size=BATCH, plans=plans)
    found = jax.jit(program.call)(named(params), images, np.ones(BATCH, bool))
    expected = jax.jit(model.apply)(params, normalise(images))
    np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-5)
    np.testing.assert_allclose(found["gmacs"], model.gmacs(expected), rtol=1e-6)


def test_dense_programs_of_an_adaptive_model_skip_nothing():
    model = tiny("avit")
    weights = named(model.init(jax.random.key(0)))
    program = jax.jit(exported(model, "dense", None).call)
    found = program(weights, images_of(model), np.ones(BATCH, bool))
    np.testing.assert_array_equal(found["depth"], model.shape.depth)
    np.testing.assert_allclose(found["gmacs"], model.dense_gmacs(), rtol=1e-6)


def test_a_capped_program_also_says_how_many_tokens_each_image_lost():
    model = tiny("avit")
    program = exported(model, "capped", dataclasses.replace(PLAN, capacities=(17, 6, 2)))
    exists = np.ones(BATCH, bool)
    found = jax.eval_shape(program.call, named(model.abstract_params()), images_of(model), exists)
    assert {name: value.shape for name, value in found.items()} == {
        "logits": (BATCH, 7),
        "depth": (BATCH, 17),
        "gmacs": (BATCH,),
        "dropped": (BATCH,),
    }


def test_each_branch_has_the_sizes_of_its_kind_of_machine():
    model = avit_jax.create_model("deit_tiny_patch16_224")
    tokens, capacities = model.shape.num_tokens, (197,) * 11 + (2,)
    chosen = Plan(
        images=7,
        row_sizes=(99,),
        attention_images=1,
        lengths=(tokens,),
        dense_images=1,
        capacities=capacities,
    )
    plans = plans_for(model, 16, chosen)
    assert plans["cpu"] == chosen
    other = default_plan(tokens, 16, num_heads=3, platform="gpu")
    assert plans["gpu"] == dataclasses.replace(other, capacities=capacities)


def test_no_exported_program_has_fused_attention():
    """It could not be traced for the other platforms."""
    model = avit_jax.create_model("avit_micro_patch4_32")
    chosen = dataclasses.replace(model.default_plan(4), fused_attention=True)
    plans = plans_for(model, 4, chosen)
    assert not any(plan.fused_attention for plan in plans.values())


def test_each_platform_gets_the_sizes_that_the_method_has_for_it():
    model = avit_jax.create_model("adavit_deit_micro_patch4_32")
    plans = plans_for(model, 16, None)
    assert plans["cpu"] == model.default_plan(16, platform="cpu")
    assert plans["gpu"] == model.default_plan(16, platform="gpu") != plans["cpu"]
