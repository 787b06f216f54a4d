"""Rows gathered so that the gradient is a gather, too, for which the caller knows the way back.

XLA would scatter and add, which accelerators do slowly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_vjp
def gather(rows: Array, source: Array, found: Array, target: Array, kept: Array) -> Array:
    """`rows[source]` where `found`, else 0; `target` and `kept` are the way back."""
    return masked(rows[source], found)


def _forward(rows: Array, source: Array, found: Array, target: Array, kept: Array):
    return gather(rows, source, found, target, kept), (target, kept)


def _backward(way_back: tuple[Array, Array], gradient: Array):
    target, kept = way_back
    return masked(gradient[target], kept), None, None, None, None


gather.defvjp(_forward, _backward)


def masked(rows: Array, exists: Array) -> Array:
    """Rows `[R, ...]`, 0 where they do not exist, `[R]` bool."""
    return jnp.where(exists.reshape(-1, *(1,) * (rows.ndim - 1)), rows, 0)
