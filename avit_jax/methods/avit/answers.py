"""What of the tokens' states reaches the classifiers, and when an image is finished.

Classifiers read tokens (`Tokens.read`): class and distillation token, or with average pooling all
patches, of whose outputs, the means of their states weighted by their scores, the mean is then
taken. An image is finished when all tokens that are read have halted. Registers and tokens that
nobody reads are keys until then, and do not keep it going.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.execution.layout import Layout
from avit_jax.execution.row_sums import weighted_sums
from avit_jax.methods.avit import halting
from avit_jax.models.shape import Shape


def nothing(shape: Shape, batch: int) -> Array:
    """The sum of `gained` in front of the first layer, `[B, num_read, D]` float32."""
    return jnp.zeros((batch, shape.num_read, shape.embed_dim), jnp.float32)


def running(shape: Shape, live: Array) -> Array:
    """Those of the live tokens `[..., N]` bool that run: none of an image that is finished."""
    return live & live[..., shape.read].any(-1, keepdims=True)


def gained(shape: Shape, live: Array, weight: Array, states: Array) -> Array:
    """What one layer adds to what classifiers read, `[B, num_read, D]` float32.

    Args:
        shape: of the network.
        live: `[B, N]` bool, tokens that ran.
        weight: `[B, N]` float32, of their states, from `halting.step`.
        states: `[B, n, D]` behind the layer, of the tokens that are read.
    """
    read = shape.read
    weighted = halting.contribution(live[:, read], weight[:, read], states)
    return weighted.sum(1, keepdims=True) / shape.grid**2 if shape.averages else weighted


def gained_by_rows(shape: Shape, live: Array, weight: Array, rows: Array, layout: Layout) -> Array:
    """`gained` of a model that averages, from rows `[R, D]` as a layout has them."""
    patches = live & (jnp.arange(shape.num_tokens) >= shape.num_prefix_tokens)
    return weighted_sums(rows, weight, patches, layout)[:, None] / shape.grid**2
