"""The pre-norm transformer block in two half-steps, `attend` and `feed`, that obey `Gates`.

Every method strings these blocks together; none has a block of its own. A block keeps no random
state: dropout and stochastic depth take a key, and run only where one is given.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from avit_jax.models import attention
from avit_jax.types import Gates

NORM_EPS = 1e-6  # of DeiT and A-ViT
# Variance 1 / inputs keeps signals at their size whatever the width; DeiT's fixed 0.02 is far below
# that for narrow models (docs/results.md has what was measured at width 48).
_weights = nnx.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Sizes of one block; `dtype` is the dtype of its arithmetic, parameters are float32.

    `extra_dim` channels may be joined to the MLP's normalised input (feature reuse in cascades).
    `attention_scale` is the factor on attention scores; `(embed_dim / num_heads) ** -0.5` if unset.
    """

    embed_dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    extra_dim: int = 0
    dropout_rate: float = 0.0
    norm_eps: float = NORM_EPS
    attention_scale: float | None = None
    dtype: DTypeLike = jnp.float32

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP."""
        return int(self.embed_dim * self.mlp_ratio)


def linear(
    inputs: int, outputs: int, *, use_bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Linear:
    """A linear layer with weights of variance 1 / inputs (truncated normal) and zero bias."""
    return nnx.Linear(
        inputs, outputs, use_bias=use_bias, kernel_init=_weights, dtype=dtype, rngs=rngs
    )


def layer_norm(features: int, *, eps: float, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation whose statistics are always computed in float32."""
    return nnx.LayerNorm(features, epsilon=eps, dtype=dtype, use_fast_variance=False, rngs=rngs)


def dropout(x: Array, rate: float | Array, key: Array | None) -> Array:
    """Zero entries of `x` with probability `rate` and rescale the rest; nothing without a key."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0).astype(x.dtype)


def drop_path(update: Array, rate: float | Array, key: Array | None) -> Array:
    """Stochastic depth (arXiv 1603.09382): drop an image's whole update `[B, N, D]`."""
    if key is None:
        return update
    kept = jax.random.bernoulli(key, 1.0 - rate, (update.shape[0], 1, 1))
    return jnp.where(kept, update / (1.0 - rate), 0.0).astype(update.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention; softmax in float32 whatever the dtype."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        dim = shape.embed_dim
        self.num_heads = shape.num_heads
        self.scale = shape.attention_scale
        self.qkv = linear(dim, 3 * dim, use_bias=shape.qkv_bias, dtype=shape.dtype, rngs=rngs)
        self.proj = linear(dim, dim, dtype=shape.dtype, rngs=rngs)

    def __call__(
        self,
        x: Array,
        *,
        gates: Gates | None = None,
        bias: Array | None = None,
    ) -> Array:
        """`[B, N, D]` to `[B, N, D]`.

        Args:
            x: normalised tokens.
            gates: which tokens and heads take part.
            bias: `[B, H, N, N]` added to the scores before the softmax.
        """
        gates = gates or Gates()
        heads = None if gates.heads is None else gates.heads[:, None, :, None].astype(x.dtype)
        whole_head = gates.head_effect != "attention"
        query, key, value = self._query_key_value(x, gates.heads if whole_head else None)
        keys = _both(gates.tokens, gates.selected)
        mixed = attention.mix(query, key, value, keys=keys, bias=bias, scale=self.scale)
        if gates.selected is not None:
            mixed = jnp.where((gates.selected > 0)[:, :, None, None], mixed, value)
        if heads is not None:
            mixed = mixed * heads if whole_head else mixed * heads + value * (1 - heads)
        return self.proj(mixed.reshape(x.shape))

    def scores(self, x: Array, *, heads: Array | None = None, bias: Array | None = None) -> Array:
        """Scaled scores in front of the softmax, `[B, H, N, N]` float32 (`bias` included)."""
        query, key, _ = self._query_key_value(x, heads)
        return attention.scores(query, key, bias, scale=self.scale)

    def class_row(self, x: Array, *, heads: Array | None = None) -> Array:
        """What the class token attends to, `[B, H, N]` float32, all tokens being there."""
        query, key, _ = self._query_key_value(x, heads)
        return jax.nn.softmax(attention.scores(query[:, :1], key, None, scale=self.scale))[:, :, 0]

    def queries(self, x: Array) -> Array:
        """Queries alone, `[..., D]`: for the last block, of which few tokens are wanted."""
        return self._project(x, slice(0, x.shape[-1]))

    def keys_values(self, x: Array) -> Array:
        """Keys and values alone, `[..., 2 D]`."""
        return self._project(x, slice(x.shape[-1], None))

    def _project(self, x: Array, columns: slice) -> Array:
        kernel, bias = self.qkv.kernel[...], self.qkv.bias
        update = x @ kernel[:, columns].astype(x.dtype)
        return update if bias is None else update + bias[...][columns].astype(x.dtype)

    def _query_key_value(self, x: Array, heads: Array | None) -> tuple[Array, Array, Array]:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        if heads is not None:
            qkv = qkv * heads[:, None, None, :, None].astype(qkv.dtype)
        return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]


def gelu(x: Array) -> Array:
    """The exact GELU with `erf`, cheaper on CPU than with `erfc`; float32 inside for bfloat16."""
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


class Mlp(nnx.Module):
    """Two linear layers around the exact (erf) GELU."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        inputs = shape.embed_dim + shape.extra_dim
        self.fc1 = linear(inputs, shape.mlp_dim, dtype=shape.dtype, rngs=rngs)
        self.fc2 = linear(shape.mlp_dim, shape.embed_dim, dtype=shape.dtype, rngs=rngs)

    def __call__(self, x: Array, *, units: Array | None = None) -> Array:
        """`[B, N, D (+ extra)]` to `[B, N, D]`; `units` `[B, hidden]` are factors in the middle."""
        hidden = self.fc1(x)
        if units is not None:
            hidden = hidden * units[:, None, :].astype(hidden.dtype)
        return self.fc2(gelu(hidden))


class Block(nnx.Module):
    """Pre-norm block. Call `attend`, then `feed`; both add their update to `x` `[B, N, D]`."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        self.dropout_rate = shape.dropout_rate
        self.norm1 = layer_norm(shape.embed_dim, eps=shape.norm_eps, dtype=shape.dtype, rngs=rngs)
        self.attention = Attention(shape, rngs=rngs)
        self.norm2 = layer_norm(
            shape.embed_dim + shape.extra_dim, eps=shape.norm_eps, dtype=shape.dtype, rngs=rngs
        )
        self.mlp = Mlp(shape, rngs=rngs)

    def attend(
        self,
        x: Array,
        *,
        gates: Gates | None = None,
        normed: Array | None = None,
        bias: Array | None = None,
        drop_path_rate: float | Array = 0.0,
        key: Array | None = None,
    ) -> Array:
        """The attention half.

        Args:
            x: tokens `[B, N, D]`.
            gates: what to skip.
            normed: `norm1(x)` where the caller has computed it already to decide the gates.
            bias: `[B, H, N, N]` added to the attention scores (relation reuse).
            drop_path_rate: probability of dropping the whole update of an image.
            key: draws of dropout and stochastic depth; without one, neither runs.
        """
        gates = gates or Gates()
        normed = _mask_tokens(self.norm1(x) if normed is None else normed, gates)
        update = self.attention(normed, gates=gates, bias=bias)
        return x + self._finish(update, gates, 0, drop_path_rate, key)

    def feed(
        self,
        x: Array,
        *,
        gates: Gates | None = None,
        extra: Array | None = None,
        drop_path_rate: float | Array = 0.0,
        key: Array | None = None,
    ) -> Array:
        """The MLP half; `extra` `[B, N, extra_dim]` is joined to `x` in front of the norm."""
        gates = gates or Gates()
        inputs = x if extra is None else jnp.concatenate([x, extra], axis=-1)
        normed = _mask_tokens(self.norm2(inputs), gates)
        units = None
        if gates.heads is not None and gates.head_effect == "channels":
            heads = jnp.repeat(gates.heads, x.shape[-1] // gates.heads.shape[-1], axis=-1)
            heads = jnp.pad(heads, ((0, 0), (0, inputs.shape[-1] - x.shape[-1])), constant_values=1)
            normed = normed * heads[:, None, :].astype(normed.dtype)
        elif gates.heads is not None and gates.head_effect == "hidden":
            units = gates.heads[:, hidden_heads(self.mlp.fc1.out_features, gates.heads.shape[-1])]
        return x + self._finish(self.mlp(normed, units=units), gates, 1, drop_path_rate, key)

    def _finish(
        self, update: Array, gates: Gates, branch: int, drop_path_rate: float | Array, key
    ) -> Array:
        """Dropout, the gates that act on an update, stochastic depth."""
        if key is not None:
            dropout_key, path_key = jax.random.split(jax.random.fold_in(key, branch))
            if self.dropout_rate:
                update = dropout(update, self.dropout_rate, dropout_key)
            update = drop_path(update, drop_path_rate, path_key)
        if gates.selected is not None:
            update = update * gates.selected[:, :, None].astype(update.dtype)
        if gates.branches is not None:
            update = update * gates.branches[:, branch, None, None].astype(update.dtype)
        return update


def hidden_heads(hidden: int, num_heads: int) -> np.ndarray:
    """The head that each hidden unit of an MLP belongs to where heads take hidden units along."""
    return np.arange(hidden) * num_heads // hidden


def _both(tokens: Array | None, selected: Array | None) -> Array | None:
    """Keys `[B, N]` bool that both gates let through; `None` where neither says anything."""
    given = [gate > 0 for gate in (tokens, selected) if gate is not None]
    return functools.reduce(jnp.logical_and, given) if given else None


def _mask_tokens(normed: Array, gates: Gates) -> Array:
    if gates.tokens is None:
        return normed
    return jnp.where((gates.tokens > 0)[:, :, None], normed, 0)
