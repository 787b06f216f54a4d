"""Attention as one kernel of cuDNN's, forward and backward: scores never leave the chip.

`softmax_attention.py` decides where it is used, `runtime/devices.py` says which devices have it.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

_KERNEL = "cudnn"  # as `jax.nn.dot_product_attention` names it
MULTIPLE = 8  # of tokens, which the kernel likes, and wants for gradients


def can_be_fused(*, dtype: str, head_dim: int) -> bool:
    """Whether cuDNN has a kernel for such heads; `devices.has_cudnn` says where it runs."""
    return dtype == "bfloat16" and head_dim in range(8, 129, 8)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def in_one_kernel(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    mask: Array | None,
    lengths: Array | None,
    scale: float | None,
) -> Array:
    """`softmax_attention.mix` by one kernel, which keeps no scores.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        value: `[B, M, H, d]`.
        bias: `[B, H, N, M]` added to the scores.
        mask: `[B, 1, 1, M]` bool, keys that exist.
        lengths: `[B]` int32, instead: how many do, all in front.
        scale: factor on the products; `d ** -0.5` if unset.
    """
    if mask is not None:
        mask = jnp.broadcast_to(mask, (len(query), 1, query.shape[1], key.shape[1]))
    if lengths is not None:
        lengths = jnp.maximum(lengths, 1).astype(jnp.int32)  # of an image without any, none is read
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias,
        mask,
        scale=scale,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=_KERNEL,
    )


def _kernel_forward(query, key, value, bias, mask, lengths, scale):
    """With room up to a multiple of 8 tokens; cuDNN refuses gradients for odd numbers."""
    queries, keys = query.shape[1], key.shape[1]
    more_queries, more_keys = -queries % MULTIPLE, -keys % MULTIPLE
    if more_keys and mask is None and lengths is None:
        lengths = jnp.full(len(query), keys, jnp.int32)

    def padded(query: Array, key: Array, value: Array, bias: Array | None) -> Array:
        query = jnp.pad(query, ((0, 0), (0, more_queries), (0, 0), (0, 0)))
        key, value = (
            jnp.pad(part, ((0, 0), (0, more_keys), (0, 0), (0, 0))) for part in (key, value)
        )
        if bias is not None:
            bias = jnp.pad(bias, ((0, 0), (0, 0), (0, more_queries), (0, more_keys)))
        room = ((0, 0), (0, 0), (0, 0), (0, more_keys))
        spread = None if mask is None else jnp.pad(mask, room)
        return in_one_kernel.fun(query, key, value, bias, spread, lengths, scale)[:, :queries]

    return jax.vjp(padded, query, key, value, bias)


def _kernel_backward(scale, gradients, gradient):
    return *gradients(gradient), None, None


in_one_kernel.defvjp(_kernel_forward, _kernel_backward)
