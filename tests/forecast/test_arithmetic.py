"""Multiply-adds and bytes of programs whose figures are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.forecast.arithmetic import flops_of
from avit_jax.forecast.compiled_text import Text
from avit_jax.forecast.memory_traffic import kernel_bytes
from avit_jax.runtime.device_mesh import AXES, images_at, make_mesh

ROWS = jnp.ones((16, 32))
SQUARE = jnp.ones((32, 32))
PRODUCT = 2.0 * 16 * 32 * 32


def product(x, weights):
    return (x @ weights).sum()


def looped(x, weights):
    return jax.lax.scan(lambda x, _: (jnp.tanh(x @ weights), None), x, length=5)[0].sum()


def either(x, weights):
    return jax.lax.cond(x[0, 0] > 0, lambda: (x @ weights @ weights).sum(), lambda: x.sum())


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (product, 1),
        (looped, 5),
        (either, 2),
        (jax.jit(product), 1),
        # With respect to both: the product itself, and one for each of the two.
        (jax.value_and_grad(jax.checkpoint(looped), argnums=(0, 1)), 4 * 5),
        (jax.value_and_grad(looped, argnums=(0, 1)), 3 * 5),
    ],
)
def test_products_are_counted_where_they_run(function, products):
    assert flops_of(function, ROWS, SQUARE) == products * PRODUCT


def test_each_device_of_a_shard_map_counts():
    mesh = make_mesh(8, 1)
    whole, parts = images_at(None), images_at(0)
    function = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(parts, whole), out_specs=parts)
    assert len(AXES) == 2 and flops_of(function, ROWS, SQUARE, devices=8) == PRODUCT


def moved(function, *arguments):
    return kernel_bytes(Text(jax.jit(function).lower(*arguments).compile().as_text()))


def test_a_kernel_reads_what_it_takes_and_writes_what_it_gives():
    x = np.ones(2**20, np.float32)
    assert moved(lambda x: jnp.sin(x) * 2 + 1, x) == pytest.approx(2 * x.nbytes, rel=0.01)


def test_a_layer_of_stacked_ones_counts_as_one_layer():
    stacked = np.ones((64, 2**16), np.float32)

    def through(stacked):
        return jax.lax.scan(lambda x, layer: (jnp.sin(x + layer), None), stacked[0], stacked)[0]

    # Of each turn one layer and the carry, which is read and written, and perhaps copied.
    assert 2 * stacked.nbytes < moved(through, stacked) < 8 * stacked.nbytes
