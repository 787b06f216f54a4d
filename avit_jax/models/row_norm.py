"""Norms of rows, by a kernel on a TPU.

XLA's compiler for TPUs reads the rows once for the means, once for the variances and once more in
front of every product, and packs the statistics of all rows into vectors in between, which is more
work than the products of a small model. The kernel reads and writes them once. It knows layer and
RMS norm; others are what they are everywhere.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.experimental import pallas as pl

_ROWS = 512  # that a step treats


def normalised(norm: nnx.Module, rows: Array) -> Array:
    """`norm(rows)` of rows `[R, D]`, of a norm of single tokens."""
    if isinstance(norm, nnx.LayerNorm):
        learnt = (norm.scale[...], norm.bias[...])
    elif isinstance(norm, nnx.RMSNorm):
        learnt = (norm.scale[...],)
    else:
        return norm(rows)
    return _normalised((rows, *learnt), (norm.epsilon, norm.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _normalised(parts: tuple[Array, ...], how: tuple) -> Array:
    return lax.platform_dependent(
        *parts,
        tpu=functools.partial(by_kernel, how=how),
        default=functools.partial(_plain, how=how),
    )


def _forward(parts, how):
    return _normalised(parts, how), parts


def _backward(how, parts, gradient):
    return (jax.vjp(functools.partial(_plain, how=how), *parts)[1](gradient),)


_normalised.defvjp(_forward, _backward)


def _plain(rows: Array, scale: Array, bias: Array | None = None, *, how: tuple) -> Array:
    """As flax does: what is normalised is of `dtype`, the arithmetic float32.

    Rows are centred where there is a bias: in a layer norm.
    """
    eps, dtype = how
    wide = rows.astype(dtype).astype(jnp.float32)
    if bias is not None:
        wide = wide - wide.mean(1, keepdims=True)
    wide = wide * lax.rsqrt((wide * wide).mean(1, keepdims=True) + eps)
    wide = wide * scale.astype(dtype).astype(jnp.float32)
    if bias is not None:
        wide = wide + bias.astype(dtype).astype(jnp.float32)
    return wide.astype(dtype)


def by_kernel(rows: Array, *learnt: Array, how: tuple, interpret: bool = False) -> Array:
    """The same, by the kernel.

    Args:
        rows: `[R, D]`.
        learnt: scale `[D]`, and a bias of a layer norm.
        how: epsilon and dtype.
        interpret: where there is no TPU.
    """
    count, dim = rows.shape
    of_rows = pl.BlockSpec((_ROWS, dim), lambda step: (step, 0))
    of_all = pl.BlockSpec((1, dim), lambda step: (0, 0))

    def body(rows, *rest):
        *learnt, answer = rest
        answer[...] = _plain(rows[...], *(part[...] for part in learnt), how=how)

    return pl.pallas_call(
        body,
        out_shape=jax.ShapeDtypeStruct(rows.shape, how[1]),
        grid=(pl.cdiv(count, _ROWS),),
        in_specs=[of_rows, *[of_all] * len(learnt)],
        out_specs=of_rows,
        interpret=interpret,
    )(rows, *(part[None] for part in learnt))
