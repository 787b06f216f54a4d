"""Attention with its parameters, in three steps: `project`, `mix` and `finish`.

They are the seam that every execution goes through, whether it runs whole images, packed rows or a
few tokens of a last block. What weights values is a kind of attention (`attention_kinds.py`).
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.models.attention_kinds import KINDS
from avit_jax.models.fused_attention import MULTIPLE
from avit_jax.models.layers import BlockShape, gated, layer_gain, linear, scaled
from avit_jax.models.norms import layer_norm


class Attention(nnx.Module):
    """Multi-head self-attention in three steps that every execution takes: project, mix, finish.

    Rows are tokens `[..., D]`, of whole images `[B, N, D]` or packed ones. Heads are `[..., H, d]`.
    """

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        dim = shape.embed_dim
        self.num_heads = shape.num_heads
        self.fused = shape.fused_attention
        self.encoding = shape.position_encoding
        self.qkv = linear(dim, 3 * dim, use_bias=shape.qkv_bias, dtype=shape.dtype, rngs=rngs)
        self.proj = linear(dim, dim, dtype=shape.dtype, rngs=rngs)
        self.kind = KINDS[shape.attention](shape, rngs=rngs)
        self.scale = self.kind.scale
        self.query_norm, self.key_norm = _head_norm(shape, rngs), _head_norm(shape, rngs)
        self.gamma = layer_gain(shape)

    def project(
        self, rows: Array, positions: Array | None = None, *, heads: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """Queries, keys and values `[..., H, d]` of normalised rows `[..., D]`.

        Args:
            rows: normalised.
            positions: `[...]`, which token of its image each row is; `None` where rows are the
                tokens in order.
            heads: `[B, H]` gates of all three, for heads that are left out.
        """
        query, key, value = self.split(self.qkv(rows))
        query, key = self._query(query), self._key(key)
        if heads is not None:
            query, key, value = (
                gated(part, heads[:, None, :, None]) for part in (query, key, value)
            )
        return self._placed(query, positions), self._placed(key, positions), value

    def queries(self, rows: Array, positions: Array | None = None) -> Array:
        """Of `project` the queries alone, for a block of which few tokens are wanted."""
        (query,) = self.split(self._columns(rows, slice(0, rows.shape[-1])))
        return self._placed(self._query(query), positions)

    def keys_values(self, rows: Array, positions: Array | None = None) -> tuple[Array, Array]:
        """Of `project` the keys and values alone."""
        key, value = self.split(self._columns(rows, slice(rows.shape[-1], None)))
        return self._placed(self._key(key), positions), value

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
        lengths: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Values mixed for each query, `[B, N, H, d]`; sums are float32 whatever the dtype.

        Args:
            query: `[B, N, H, d]`.
            key: `[B, M, H, d]`.
            value: `[B, M, H, d]`.
            live: `[B, M]` bool, keys that exist; all by default. What lies at the others may be
                anything, and where none exists, the result is finite.
            lengths: `[B]` int32, instead: how many exist, all in front.
            bias: `[B, H, N, M]` added to the scores, such as relations of an earlier network.

        Raises:
            UserError: a bias, for a kind of attention without scores.
        """
        return self.kind.mix(query, key, value, live=live, lengths=lengths, bias=bias)

    def places(self, tokens: int) -> int:
        """Places for so many tokens of an image, as `mix` likes them where some may be empty."""
        return tokens + (-tokens % MULTIPLE if self.fused else 0)

    def finish(self, mixed: Array) -> Array:
        """The update `[..., D]` of rows whose mixed values are `[..., H, d]`."""
        return scaled(self.proj(self.join(mixed)), self.gamma)

    def scores(self, query: Array, key: Array, bias: Array | None = None) -> Array:
        """Scaled scores in front of the softmax, `[B, H, N, M]` float32 (`bias` included).

        Raises:
            UserError: a kind of attention without scores.
        """
        return self.kind.scores(query, key, bias)

    def class_row(self, rows: Array, *, heads: Array | None = None) -> Array:
        """What the class token attends to, `[B, H, N]` float32, all tokens being there."""
        query, key, _ = self.project(rows, heads=heads)
        return self.kind.weights(query[:, :1], key)[:, :, 0]

    def _columns(self, x: Array, columns: slice) -> Array:
        kernel, bias = self.qkv.kernel[...], self.qkv.bias
        update = x @ kernel[:, columns].astype(x.dtype)
        return update if bias is None else update + bias[...][columns].astype(x.dtype)

    def _query(self, query: Array) -> Array:
        return self.kind.query(query if self.query_norm is None else self.query_norm(query))

    def _key(self, key: Array) -> Array:
        return self.kind.key(key if self.key_norm is None else self.key_norm(key))

    def _placed(self, heads: Array, positions: Array | None) -> Array:
        return self.encoding.place(heads, positions)


def _head_norm(shape: BlockShape, rngs: nnx.Rngs) -> nnx.LayerNorm | None:
    """A norm over the channels of a head, one for all heads (ViT-22B, arXiv 2302.05442)."""
    if not shape.qk_norm:
        return None
    width = shape.embed_dim // shape.num_heads
    return layer_norm(width, eps=shape.norm_eps, dtype=shape.dtype, rngs=rngs)


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
