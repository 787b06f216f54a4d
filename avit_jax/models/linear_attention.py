"""Generalised, kernelised attention: weights are products of features, so cost is linear in tokens.

Performer's generalised attention (arXiv 2009.14794, sections 2.2 and 2.3) with cosines as features:
`phi(x) = 1 + cos(W x / d^(1/4) + b)`. A query `q` weights a key `k` by `phi(q) . phi(k)` over the
sum of that for all keys, and the sums over keys are formed once for all queries.

The 1 is there because plain cosines, `f = cos`, have either sign: sums of their products may be
negative or vanish, and what is divided by them is then as large as you like, no mean of the values.
`1 + cos` is never negative, so neither are the weights, and the result is a mean. For random `W`
and `b` the product of a feature of `q` and of `k` is `1 + exp(-|q - k|^2 / (2 d^(1/2))) / 2` on
average: a Gaussian kernel, of the width that the softmax's scale gives it, on an even floor. How
much of it is sharp, a model learns with `W`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array


def random_frequencies(key: Array, inputs: int) -> Array:
    """`W` `[d, d]` float32: orthogonal columns as long as Gaussian vectors (section 2.4 there)."""
    directions, lengths = jax.random.split(key)
    orthogonal = jax.nn.initializers.orthogonal(dtype=jnp.float32)(directions, (inputs, inputs))
    gaussian = jax.random.normal(lengths, (inputs, inputs), jnp.float32)
    return orthogonal * jnp.linalg.norm(gaussian, axis=0)


def random_phases(key: Array, features: int) -> Array:
    """`b` `[m]` float32, uniform on a circle."""
    return jax.random.uniform(key, (features,), jnp.float32, 0.0, 2 * math.pi)


def features(x: Array, frequencies: Array, phases: Array) -> Array:
    """`1 + cos(W x / d^(1/4) + b)` of queries or keys `[..., d]`: `[..., m]` float32, from 0 to 2.

    Args:
        x: queries or keys of each head.
        frequencies: `W`, `[d, m]`.
        phases: `b`, `[m]`.
    """
    scaled = (frequencies * x.shape[-1] ** -0.25).astype(x.dtype)
    angle = jnp.einsum("...d,dm->...m", x, scaled, preferred_element_type=jnp.float32)
    return 1.0 + jnp.cos(angle + phases)


def mix(
    query: Array,
    key: Array,
    value: Array,
    frequencies: Array,
    phases: Array,
    *,
    live: Array | None = None,
) -> Array:
    """Values mixed for each query, `[B, N, H, d]`; features and sums are float32.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        value: `[B, M, H, d]`.
        frequencies: `W`, `[d, m]`.
        phases: `b`, `[m]`.
        live: `[B, M]` bool, which keys exist; all by default. What lies at the others may be
            anything; where no key exists at all, the result is 0.
    """
    if live is not None:  # a weight of 0 does not stop NaN, nor does its gradient
        key, value = (jnp.where(live[:, :, None, None], part, 0) for part in (key, value))
    query, key = (features(part, frequencies, phases) for part in (query, key))
    if live is not None:
        key = jnp.where(live[:, :, None, None], key, 0)
    summary = jnp.einsum("bmhf,bmhd->bhfd", key, value.astype(jnp.float32))
    mixed = jnp.einsum("bnhf,bhfd->bnhd", query, summary)
    total = jnp.einsum("bnhf,bhf->bnh", query, key.sum(1))
    return (mixed / jnp.where(total > 0, total, 1.0)[..., None]).astype(value.dtype)


def weights(query: Array, key: Array, frequencies: Array, phases: Array) -> Array:
    """What `mix` weights values by, `[B, H, N, M]` float32, to look at; all keys being there."""
    query, key = (features(part, frequencies, phases) for part in (query, key))
    products = jnp.einsum("bnhf,bmhf->bhnm", query, key)
    total = products.sum(-1, keepdims=True)
    return products / jnp.where(total > 0, total, 1.0)
