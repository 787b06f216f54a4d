"""The pre-norm transformer block in two half-steps, `attend` and `feed`, that obey `Gates`.

Every method strings these blocks together; none has a block of its own. A block keeps no random
state: dropout and stochastic depth take a key, and run only where one is given.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from avit_jax.models import attention
from avit_jax.models.positions import PositionEncoding
from avit_jax.types import Gates

NORM_EPS = 1e-6  # of DeiT and A-ViT
NO_POSITIONS = PositionEncoding()
# Variance 1 / inputs keeps signals at their size whatever the width; DeiT's fixed 0.02 is far below
# that for narrow models (docs/results.md has what was measured at width 48).
_weights = nnx.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Sizes of one block; `dtype` is the dtype of its arithmetic, parameters are float32.

    `extra_dim` channels may be joined to the MLP's normalised input (feature reuse in cascades).
    `attention_scale` is the factor on attention scores; `(embed_dim / num_heads) ** -0.5` if unset.
    `fused_attention` takes cuDNN's kernel, see `attention.can_be_fused`.
    """

    embed_dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    extra_dim: int = 0
    dropout_rate: float = 0.0
    norm_eps: float = NORM_EPS
    attention_scale: float | None = None
    fused_attention: bool = False
    position_encoding: PositionEncoding = NO_POSITIONS
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
    """Multi-head self-attention in three steps that every execution takes: project, mix, finish.

    Rows are tokens `[..., D]`, of whole images `[B, N, D]` or packed ones. Heads are `[..., H, d]`.
    """

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        dim = shape.embed_dim
        self.num_heads = shape.num_heads
        self.scale = shape.attention_scale
        self.fused = shape.fused_attention
        self.encoding = shape.position_encoding
        self.qkv = linear(dim, 3 * dim, use_bias=shape.qkv_bias, dtype=shape.dtype, rngs=rngs)
        self.proj = linear(dim, dim, dtype=shape.dtype, rngs=rngs)

    def project(
        self, rows: Array, positions: Array | None = None, *, heads: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Queries, keys and values `[..., H, d]` of normalised rows `[..., D]`.

        Args:
            rows: normalised.
            positions: `[...]`, which token of its image each row is; `None` where rows are the
                tokens in order.
            heads: `[B, H]` factors on all three, for heads that are left out.
        """
        query, key, value = self.split(self.qkv(rows))
        if heads is not None:
            query, key, value = (
                part * heads[:, None, :, None].astype(part.dtype) for part in (query, key, value)
            )
        return self._placed(query, positions), self._placed(key, positions), value

    def queries(self, rows: Array, positions: Array | None = None) -> Array:
        """Of `project` the queries alone, for a block of which few tokens are wanted."""
        (query,) = self.split(self._columns(rows, slice(0, rows.shape[-1])))
        return self._placed(query, positions)

    def keys_values(self, rows: Array, positions: Array | None = None) -> tuple[Array, Array]:
        """Of `project` the keys and values alone."""
        key, value = self.split(self._columns(rows, slice(rows.shape[-1], None)))
        return self._placed(key, positions), value

    def split(self, joined: Array) -> list[Array]:
        """`[..., parts * D]` as parts `[..., H, d]`; the inverse of `join`."""
        dim = self.proj.in_features
        size = (*joined.shape[:-1], self.num_heads, dim // self.num_heads)
        parts = joined.shape[-1] // dim
        return [joined[..., part * dim : (part + 1) * dim].reshape(size) for part in range(parts)]

    def join(self, *parts: Array) -> Array:
        """Parts `[..., H, d]` side by side, `[..., parts * D]`, as a buffer of rows holds them."""
        flat = [part.reshape(*part.shape[:-2], -1) for part in parts]
        return jnp.concatenate(flat, axis=-1)

    def mix(
        self,
        query: Array,
        key: Array,
        value: Array,
        *,
        live: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Values mixed for each query, `[B, N, H, d]`; see `attention.mix`.

        Args:
            query: `[B, N, H, d]`.
            key: `[B, M, H, d]`.
            value: `[B, M, H, d]`.
            live: `[B, M]` bool, keys that exist; all by default.
            bias: `[B, H, N, M]` added to the scores, such as relations of an earlier network.
        """
        return attention.mix(
            query, key, value, live=live, bias=bias, scale=self.scale, fused=self.fused
        )

    def finish(self, mixed: Array) -> Array:
        """The update `[..., D]` of rows whose mixed values are `[..., H, d]`."""
        return self.proj(self.join(mixed))

    def scores(self, query: Array, key: Array, bias: Array | None = None) -> Array:
        """Scaled scores in front of the softmax, `[B, H, N, M]` float32 (`bias` included)."""
        return attention.scores(query, key, bias, scale=self.scale)

    def class_row(self, rows: Array, *, heads: Array | None = None) -> Array:
        """What the class token attends to, `[B, H, N]` float32, all tokens being there."""
        query, key, _ = self.project(rows, heads=heads)
        return jax.nn.softmax(self.scores(query[:, :1], key))[:, :, 0]

    def _columns(self, x: Array, columns: slice) -> Array:
        kernel, bias = self.qkv.kernel[...], self.qkv.bias
        update = x @ kernel[:, columns].astype(x.dtype)
        return update if bias is None else update + bias[...][columns].astype(x.dtype)

    def _placed(self, heads: Array, positions: Array | None) -> Array:
        if not self.encoding.acts_on_heads:
            return heads
        if positions is None:
            positions = jnp.arange(heads.shape[-3])
        return self.encoding.place(heads, positions)


def without_dropped_heads(mixed: Array, value: Array, kept: Array, effect: str) -> Array:
    """Mixed values `[..., H, d]` in which dropped heads are 0, or hand on their values.

    Args:
        mixed: of all heads.
        value: of the same rows.
        kept: `[..., H]`, bool, or factors that carry gradient. What lies at dropped heads may be
            anything where it is bool.
        effect: what a dropped head takes with it, one of `types.HEAD_EFFECTS`.
    """
    kept, instead = kept[..., None], value if effect == "attention" else jnp.zeros((), value.dtype)
    if kept.dtype == bool:
        return jnp.where(kept, mixed, instead)
    kept = kept.astype(mixed.dtype)
    return mixed * kept + value * (1 - kept) if effect == "attention" else mixed * kept


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

    def attend(self, x: Array, **options: Any) -> Array:
        """The attention half on tokens `[B, N, D]`; for its options see `attend_and_score`."""
        return self.attend_and_score(x, **options)[0]

    def attend_and_score(
        self,
        x: Array,
        *,
        gates: Gates | None = None,
        normed: Array | None = None,
        positions: Array | None = None,
        bias: Array | None = None,
        drop_path_rate: float | Array = 0.0,
        key: Array | None = None,
    ) -> tuple[Array, Callable[[], Array]]:
        """The attention half, and a function that gives its scores `[B, H, N, N]`, `bias` included.

        Scores are formed only if it is called: they are `N * N` numbers for every head.

        Args:
            x: tokens `[B, N, D]`.
            gates: what to skip.
            normed: `norm1(x)` where the caller has computed it already to decide the gates.
            positions: `[B, N]`, which token of its image each row is; in order by default.
            bias: `[B, H, N, N]` added to the scores (relations of an earlier network).
            drop_path_rate: probability of dropping the whole update of an image.
            key: draws of dropout and stochastic depth; without one, neither runs.
        """
        gates, attention = gates or Gates(), self.attention
        normed = _mask_tokens(self.norm1(x) if normed is None else normed, gates)
        whole_head = gates.heads is not None and gates.head_effect != "attention"
        heads = gates.heads if whole_head else None
        query, key_, value = attention.project(normed, positions, heads=heads)
        live = _both(gates.tokens, gates.selected)
        mixed = attention.mix(query, key_, value, live=live, bias=bias)
        if gates.selected is not None:  # a token that sits out attends to itself
            mixed = jnp.where((gates.selected > 0)[:, :, None, None], mixed, value)
        if gates.heads is not None:
            kept = jnp.broadcast_to(gates.heads[:, None], mixed.shape[:-1])
            mixed = without_dropped_heads(mixed, value, kept, gates.head_effect)
        update = self._finish(attention.finish(mixed), gates, 0, drop_path_rate, key)
        return x + update, lambda: attention.scores(query, key_, bias)

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
