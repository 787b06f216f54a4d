"""Softmax attention: scores of all pairs of queries and keys, and the mean that they weight."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from avit_jax.models.fused_attention import in_one_kernel

# Finite, so that a row without any live key stays finite; far below any score.
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def scores(
    query: Array, key: Array, bias: Array | None = None, *, scale: float | None = None
) -> Array:
    """Scaled scores in front of the softmax, `[B, H, N, M]` float32.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        bias: `[B, H, N, M]`, added.
        scale: factor on the products; `d ** -0.5` by default.
    """
    # Heads beside images: only so XLA's CPU backend makes one program of scores and softmax
    # (docs/performance/cpu.md).
    query, key = query.swapaxes(1, 2), key.swapaxes(1, 2)
    products = jnp.einsum("bhnd,bhmd->bhnm", query, key, preferred_element_type=jnp.float32)
    products = products * (query.shape[-1] ** -0.5 if scale is None else scale)
    return products if bias is None else products + bias


def mix(
    query: Array,
    key: Array,
    value: Array,
    *,
    live: Array | None = None,
    lengths: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    fused: bool = False,
) -> Array:
    """Values mixed by softmax attention, `[B, N, H, d]`; the softmax is float32 whatever the dtype.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        value: `[B, M, H, d]`.
        live: `[B, M]` bool, which keys exist. What lies at the others may be anything; where no key
            exists at all, the result is the mean of all values, as published.
        lengths: `[B]` int32, instead of `live`: how many tokens of each image exist, all in front;
            the answers of the others mean nothing. For as many queries as keys.
        bias: `[B, H, N, M]` added to the scores.
        scale: factor on the products of queries and keys; `d ** -0.5` by default.
        fused: one kernel of cuDNN's, see `fused_attention.py`, where there are as many queries as
            keys. A few queries, as of a last block, leave no scores that were worth avoiding.
    """
    fused = fused and query.shape[1] == key.shape[1]
    if fused and live is None:
        return in_one_kernel(query, key, value, bias, None, lengths, scale)
    if lengths is not None:
        live = jnp.arange(key.shape[1]) < lengths[:, None]
    if live is not None:
        # Neither a mask nor a weight of 0 stops NaN. Without any key all scores become equal.
        counted = live | ~live.any(1, keepdims=True)
        key = jnp.where(live[:, :, None, None], key, 0)
        value = jnp.where(counted[:, :, None, None], value, 0)
    if fused:
        return in_one_kernel(query, key, value, bias, counted[:, None, None, :], None, scale)
    products = scores(query, key, bias, scale=scale)
    if live is not None:  # masks are added for the same reason as heads stand beside images
        products = products + jnp.where(live, 0.0, _MASKED)[:, None, None, :]
    weights = jnp.exp(products - lax.stop_gradient(products.max(-1, keepdims=True)))
    value = value.swapaxes(1, 2)
    mixed = jnp.einsum(
        "bhnm,bhmd->bhnd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    mixed = mixed / weights.sum(-1, keepdims=True)
    return mixed.astype(value.dtype).swapaxes(1, 2)
