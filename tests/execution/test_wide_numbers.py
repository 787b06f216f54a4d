"""JAX_ENABLE_X64, as users of numerical software have it, changes no type of an execution's."""

import jax
import jax.numpy as jnp
import pytest

import avit_jax
from avit_jax.data.mix import normalise
from avit_jax.execution.compact import COMPACT
from avit_jax.execution.plan import Plan


@pytest.mark.parametrize("name", ["avit_micro_patch4_32", "adavit_deit_micro_patch4_32"])
def test_compact_execution_is_traced_in_the_usual_types(name):
    model = avit_jax.create_model(name, depth=3, patch_size=8)
    plan = Plan(images=4, row_sizes=(8, 68), attention_images=2, lengths=(9, 17), dense_images=1)
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    with jax.enable_x64(True):
        program = COMPACT.program(model, plan)
        output = jax.eval_shape(
            program, model.abstract_params(), images, jax.ShapeDtypeStruct((4,), bool)
        )
    assert output.logits.dtype == jnp.float32


def test_pixels_are_normalised_in_single_precision():
    with jax.enable_x64(True):
        pixels = jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.uint8)
        assert jax.eval_shape(normalise, pixels).dtype == jnp.float32
