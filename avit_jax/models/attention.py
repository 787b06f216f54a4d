"""Softmax attention of given queries, keys and values: the arithmetic without the parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
import jax.numpy as jnp
from jax import Array

# Finite, so that a row without any live key stays finite; far below any score.
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
_SMALL = 80 * 80  # scores of one head
_KERNEL = "cudnn"  # as `jax.nn.dot_product_attention` names it
_traced_for: ContextVar[str | None] = ContextVar("traced_for", default=None)
_fused: ContextVar[bool] = ContextVar("fused", default=False)


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Within it, code is traced for `platform` ("cpu", "gpu", "tpu") and not for this machine.

    For programs that one machine traces and others run (`export/program.py`). A trace that JAX has
    cached is not made again, so functions traced within must not have been traced before.
    """
    token = _traced_for.set(platform)
    try:
        yield
    finally:
        _traced_for.reset(token)


@contextlib.contextmanager
def fused(wanted: bool) -> Iterator[None]:
    """Within it, `mix` is traced as one kernel of cuDNN's if `wanted`, see `can_be_fused`."""
    token = _fused.set(wanted)
    try:
        yield
    finally:
        _fused.reset(token)


def can_be_fused(*, dtype: str, head_dim: int) -> bool:
    """Whether cuDNN has a kernel for such heads and this machine a GPU that runs it."""
    device = jax.devices()[0]
    if device.platform != "gpu" or "cuda" not in device.client.platform_version:
        return False
    ampere = tuple(int(part) for part in device.compute_capability.split(".")) >= (8, 0)
    return ampere and dtype == "bfloat16" and head_dim in range(8, 129, 8)


def scores(
    query: Array,
    key: Array,
    bias: Array | None = None,
    *,
    scale: float | None = None,
    keys_last: bool = True,
) -> Array:
    """Scaled scores in front of the softmax, `[B, H, N, M]` float32.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        bias: `[B, H, N, M]`, added.
        scale: factor on the products; `d ** -0.5` by default.
        keys_last: False for `[B, H, M, N]`.
    """
    order = "bhnm" if keys_last else "bhmn"
    products = jnp.einsum(f"bnhd,bmhd->{order}", query, key, preferred_element_type=jnp.float32)
    products = products * (query.shape[-1] ** -0.5 if scale is None else scale)
    if bias is None:
        return products
    return products + (bias if keys_last else bias.swapaxes(-1, -2))


def mix(
    query: Array,
    key: Array,
    value: Array,
    *,
    keys: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
) -> Array:
    """Values mixed by softmax attention, `[B, N, H, d]`; the softmax is float32 whatever the dtype.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        value: `[B, M, H, d]`.
        keys: `[B, M]` bool, which keys exist. What lies at the others may be anything finite; where
            no key exists at all, the result is the mean of all values, as published.
        bias: `[B, H, N, M]` added to the scores.
        scale: factor on the products of queries and keys; `d ** -0.5` by default.
    """
    if _fused.get():
        return _fused_mix(query, key, value, keys, bias, scale)
    # On a CPU one head after the other stays in the cache, unless the scores are small, and sums
    # over keys vectorise where those are not the last axis; elsewhere few large kernels win.
    num_heads = query.shape[2]
    large = query.shape[1] * key.shape[1] > _SMALL
    on_cpu = (_traced_for.get() or jax.default_backend()) == "cpu"
    step = 1 if large and on_cpu else num_heads
    mixed = [
        _mix(
            query[:, :, head : head + step],
            key[:, :, head : head + step],
            value[:, :, head : head + step],
            keys,
            None if bias is None else bias[:, head : head + step],
            scale,
            not on_cpu,
        )
        for head in range(0, num_heads, step)
    ]
    return jnp.concatenate(mixed, axis=2)


def _mix(
    query: Array,
    key: Array,
    value: Array,
    keys: Array | None,
    bias: Array | None,
    scale: float | None,
    keys_last: bool,
) -> Array:
    products = scores(query, key, bias, scale=scale, keys_last=keys_last)
    axis, order = (-1, "bhnm") if keys_last else (-2, "bhmn")
    if keys is not None:
        exists = keys[:, None, None, :] if keys_last else keys[:, None, :, None]
        products = jnp.where(exists, products, _MASKED)
        # A weight of 0 does not stop what is not a number.
        value = jnp.where((keys | ~keys.any(1, keepdims=True))[:, :, None, None], value, 0)
    weights = jnp.exp(products - jax.lax.stop_gradient(products.max(axis, keepdims=True)))
    mixed = jnp.einsum(
        f"{order},bmhd->bnhd",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    return (mixed / weights.sum(axis).transpose(0, 2, 1)[..., None]).astype(value.dtype)


def _fused_mix(
    query: Array,
    key: Array,
    value: Array,
    keys: Array | None,
    bias: Array | None,
    scale: float | None,
) -> Array:
    mask = None
    if keys is not None:
        # A mask does not stop what is not a number; without any key all scores become equal.
        exists = keys | ~keys.any(1, keepdims=True)
        key = jnp.where(keys[:, :, None, None], key, 0)
        value = jnp.where(exists[:, :, None, None], value, 0)
        size = (len(query), 1, query.shape[1], key.shape[1])
        mask = jnp.broadcast_to(exists[:, None, None, :], size)
    return jax.nn.dot_product_attention(
        query, key, value, bias, mask, scale=scale, implementation=_KERNEL
    )
