"""Layer normalisation of rows, by a kernel on a TPU.

XLA's compiler for TPUs reads the rows once for the means, once for the variances and once more in
front of every product, and packs the statistics of all rows into vectors in between, which is more
work than the products of a small model. The kernel reads and writes them once.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.experimental import pallas as pl

_ROWS = 512  # that a step treats


def normalised(norm: nnx.LayerNorm, rows: Array) -> Array:
    """`norm(rows)` of rows `[R, D]`."""
    return _normalised(rows, norm.scale[...], norm.bias[...], (norm.epsilon, norm.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalised(rows: Array, scale: Array, bias: Array, how: tuple) -> Array:
    return lax.platform_dependent(
        rows,
        scale,
        bias,
        tpu=functools.partial(by_kernel, how=how),
        default=functools.partial(_plain, how=how),
    )


def _forward(rows, scale, bias, how):
    return _normalised(rows, scale, bias, how), (rows, scale, bias)


def _backward(how, kept, gradient):
    return jax.vjp(functools.partial(_plain, how=how), *kept)[1](gradient)


_normalised.defvjp(_forward, _backward)


def _plain(rows: Array, scale: Array, bias: Array, *, how: tuple) -> Array:
    """As flax does: what is normalised is of `dtype`, the arithmetic float32."""
    eps, dtype = how
    wide = rows.astype(dtype).astype(jnp.float32)
    wide = wide - wide.mean(1, keepdims=True)
    wide = wide * lax.rsqrt((wide * wide).mean(1, keepdims=True) + eps)
    scale, bias = (part.astype(dtype).astype(jnp.float32) for part in (scale, bias))
    return (wide * scale + bias).astype(dtype)


def by_kernel(
    rows: Array, scale: Array, bias: Array, *, how: tuple, interpret: bool = False
) -> Array:
    """The same, by the kernel; `how` is epsilon and dtype."""
    count, dim = rows.shape
    of_rows = pl.BlockSpec((_ROWS, dim), lambda step: (step, 0))
    of_all = pl.BlockSpec((1, dim), lambda step: (0, 0))

    def body(rows, scale, bias, answer):
        answer[...] = _plain(rows[...], scale[...], bias[...], how=how)

    return pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct(rows.shape, how[1]),
        grid=(pl.cdiv(count, _ROWS),),
        in_specs=[of_rows, of_all, of_all],
        out_specs=of_rows,
        interpret=interpret,
    )(rows, scale[None], bias[None])
