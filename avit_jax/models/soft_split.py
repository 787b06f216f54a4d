"""The tokens-to-token module of T2T-ViT (arXiv 2101.11986, section 3.1): images to patch tokens.

Three soft splits (overlapping windows, unfolded) with a layer of attention between them, and a
linear projection. Attention is a performer (FAVOR+, arXiv 2009.14794; one head, positive random
features that stay as drawn) or a plain softmax transformer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from avit_jax.models.layers import BlockShape, Mlp, dropout, linear
from avit_jax.models.norms import layer_norm
from avit_jax.models.softmax_attention import mix

NORM_EPS = 1e-5
PERFORMER_EPS = 1e-8  # added to the denominator, which could be 0


class Split(NamedTuple):
    """Windows of `size` x `size` every `stride`, on an input with `pad` zeros on every side."""

    size: int
    stride: int
    pad: int


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))


def windows(side: int, split: Split) -> int:
    """Windows along each side of a square input."""
    return (side + 2 * split.pad - split.size) // split.stride + 1


def soft_split(grid: Array, split: Split) -> Array:
    """Overlapping windows of `[B, H, W, C]` as `[B, H', W', C * size * size]`.

    Features are ordered by channel, then row, then column of the window, as PyTorch unfolds.
    """
    size, stride, pad = split
    padded = jnp.pad(grid, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = (windows(side, split) for side in grid.shape[1:3])
    parts = [
        padded[:, y : y + stride * rows : stride, x : x + stride * columns : stride]
        for y in range(size)
        for x in range(size)
    ]
    stacked = jnp.stack(parts, axis=-1)
    return stacked.reshape(*stacked.shape[:3], -1)


class TokenPerformer(nnx.Module):
    """Linear attention between two soft splits, `[B, N, inputs]` to `[B, N, width]`."""

    def __init__(self, inputs: int, width: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.norm1 = layer_norm(inputs, eps=NORM_EPS, dtype=dtype, rngs=rngs)
        self.kqv = linear(inputs, 3 * width, dtype=dtype, rngs=rngs)
        self.proj = linear(width, width, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(width, eps=NORM_EPS, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(_mlp_shape(width, dtype), rngs=rngs)
        num_features = width // 2
        orthogonal = nnx.initializers.orthogonal(num_features**0.5, dtype=jnp.float32)
        self.w = nnx.Param(orthogonal(rngs.params(), (num_features, width)))

    def __call__(self, x: Array, *, rate: float, key: Array | None) -> Array:
        """Tokens to `[B, N, width]`; with a key, dropout at `rate` acts on both updates."""
        attention_key, mlp_key = (None, None) if key is None else jax.random.split(key)
        keys, queries, value = jnp.split(self.kqv(self.norm1(x)), 3, axis=-1)
        keys, queries = self.features(keys), self.features(queries)
        wide = value.astype(jnp.float32)
        total = jnp.einsum("bnm,bm->bn", queries, keys.sum(1)) + PERFORMER_EPS
        summary = jnp.einsum("bnm,bne->bme", keys, wide)
        mixed = jnp.einsum("bnm,bme->bne", queries, summary) / total[:, :, None]
        y = value + dropout(self.proj(mixed.astype(value.dtype)), rate, attention_key)
        return y + dropout(self.mlp(self.norm2(y)), rate, mlp_key)

    def features(self, x: Array) -> Array:
        """Positive random features `[B, N, width // 2]` float32 of keys or queries."""
        x = x.astype(jnp.float32)
        w = self.w[...]
        exponent = x @ w.T - 0.5 * jnp.square(x).sum(-1, keepdims=True)
        return jnp.exp(exponent) / w.shape[0] ** 0.5

    @staticmethod
    def macs(tokens: int, inputs: int, width: int) -> int:
        """Multiply-adds on one image's tokens."""
        num_features = width // 2
        projections = tokens * width * (3 * inputs + 3 * width)
        features = 2 * tokens * num_features * width
        return projections + features + 2 * tokens * num_features * width + tokens * num_features


class TokenTransformer(nnx.Module):
    """Softmax attention with one head, `[B, N, inputs]` to `[B, N, width]`."""

    def __init__(self, inputs: int, width: int, *, fused: bool, dtype: DTypeLike, rngs: nnx.Rngs):
        self.fused = fused
        self.scale = inputs**-0.5  # by the input's width instead of the head's, as published
        self.norm1 = layer_norm(inputs, eps=NORM_EPS, dtype=dtype, rngs=rngs)
        self.qkv = linear(inputs, 3 * width, use_bias=False, dtype=dtype, rngs=rngs)
        self.proj = linear(width, width, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(width, eps=NORM_EPS, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(_mlp_shape(width, dtype), rngs=rngs)

    def __call__(self, x: Array, *, rate: float, key: Array | None) -> Array:
        """Tokens to `[B, N, width]`; this kind has no dropout, so rate and key are not used."""
        qkv = self.qkv(self.norm1(x)).reshape(*x.shape[:2], 3, 1, -1)
        query, key_, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        mixed = mix(query, key_, value, scale=self.scale, fused=self.fused)
        y = value[:, :, 0] + self.proj(mixed[:, :, 0])
        return y + self.mlp(self.norm2(y))

    @staticmethod
    def macs(tokens: int, inputs: int, width: int) -> int:
        """Multiply-adds on one image's tokens."""
        return tokens * width * (3 * inputs + 3 * width) + 2 * tokens * tokens * width


LAYERS = {"performer": TokenPerformer, "transformer": TokenTransformer}


def _mlp_shape(width: int, dtype: DTypeLike) -> BlockShape:
    return BlockShape(embed_dim=width, num_heads=1, mlp_ratio=1.0, dtype=dtype)
