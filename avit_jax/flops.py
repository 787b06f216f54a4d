"""Multiply-adds of a forward pass: the one place that counts.

One multiply-add counts once, as in the papers' "FLOPs"; only matrix products and attention count,
not norms, activations or the halting arithmetic (well under 1 %). DeiT-T / S / B at 224 px come out
as 1.254 / 4.599 / 17.56 GMACs, the published 1.3 / 4.6 / 17.6.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.models.vit import ViTShape
from avit_jax.types import Usage

GIGA = 1e9


def embedding(shape: ViTShape) -> int:
    """Patch embedding of one image."""
    return shape.grid**2 * 3 * shape.patch_size**2 * shape.embed_dim


def readout(shape: ViTShape) -> int:
    """Classifier heads of one image."""
    return shape.num_prefix_tokens * shape.embed_dim * shape.num_classes


def attention(shape: ViTShape, tokens: Array | int, heads: Array | float = 1.0) -> Array | float:
    """Attention half of one block on `tokens` live tokens with a share `heads` of the heads."""
    width = shape.embed_dim * heads
    return 4.0 * tokens * shape.embed_dim * width + 2.0 * tokens * tokens * width


def mlp(shape: ViTShape, tokens: Array | int, heads: Array | float = 1.0) -> Array | float:
    """MLP half of one block; a dropped head takes its input channels with it."""
    hidden = shape.block.mlp_dim
    return tokens * shape.embed_dim * hidden * (heads + 1.0)


def per_layer(shape: ViTShape, usage: Usage) -> Array:
    """Multiply-adds of each block for each image, `[L, B]` float32."""
    tokens = usage.tokens.sum(-1).astype(jnp.float32)
    heads = 1.0 if usage.heads is None else usage.heads.astype(jnp.float32).mean(-1)
    attend, feed = attention(shape, tokens, heads), mlp(shape, tokens, heads)
    if usage.branches is not None:
        attend = attend * usage.branches[:, :, 0]
        feed = feed * usage.branches[:, :, 1]
    return attend + feed


def gmacs(shape: ViTShape, usage: Usage) -> Array:
    """Multiply-adds of each image, embedding to head, `[B]` float32 in units of 1e9."""
    fixed = embedding(shape) + readout(shape)
    return (per_layer(shape, usage) / GIGA).sum(0) + fixed / GIGA


def dense_gmacs(shape: ViTShape) -> float:
    """Multiply-adds of one image with nothing skipped, in units of 1e9."""
    blocks = shape.depth * (attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens))
    return (embedding(shape) + blocks + readout(shape)) / GIGA
