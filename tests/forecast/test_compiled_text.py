"""What is read from a compiled program, and a static program compiled for a TPU that is absent."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.execution.static import STATIC
from avit_jax.forecast.absent_machines import compile_for, platform_of
from avit_jax.forecast.compiled_text import work_of
from avit_jax.methods.avit import synthetic
from avit_jax.types import Usage


def counted(x):
    return jax.lax.fori_loop(0, 5, lambda i, x: jnp.sin(x) * i, x)


def until_small(x):
    return jax.lax.while_loop(lambda x: x.sum() > 1.0, jnp.sin, x)


def either(x):
    return jax.lax.cond(x[0] > 0, jnp.sin, lambda x: x @ jnp.outer(x, x), x)


@pytest.mark.parametrize(("function", "waits"), [(counted, 0), (until_small, 1), (either, 1)])
def test_loops_and_branches_that_depend_on_data_are_told_from_others(function, waits):
    text = jax.jit(function).lower(jnp.ones(64)).compile().as_text()
    assert work_of(text).waits == waits


def test_kernels_in_a_loop_count_as_often_as_it_runs():
    text = jax.jit(counted).lower(jnp.ones(64)).compile().as_text()
    assert work_of(text).kernels >= 5


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="write gpu or one of v4, v5e"):
        platform_of("v3")


@pytest.mark.parametrize("name", ["avit_micro_patch4_32"])
def test_nothing_in_a_static_program_for_a_tpu_depends_on_data(name):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("the compiler for TPUs is not installed: the extra forecast-tpu has it")
    batch = 8
    model = avit_jax.create_model(name, dtype="bfloat16", depth=2, patch_size=8).on("tpu")
    depth = synthetic.patch_depths(model, 0.5, batch)
    usage = (Usage(tokens=synthetic.tokens_of(model, depth)),)
    plan = STATIC.sized(model, usage, model.default_plan(batch, platform="tpu"), batch)
    side = model.shape.image_size
    compiled = compile_for(
        "v5e",
        model.program(STATIC, plan),
        model.abstract_params(),
        jax.ShapeDtypeStruct((batch, side, side, 3), np.float32),
        jax.ShapeDtypeStruct((batch,), bool),
    )
    work = work_of(compiled.text)
    assert work.waits == 0
    assert work.kernels > 10 and work.cycles > 0
