"""Softmax attention: the arithmetic, and a module with parameters in three steps.

`Attention.project`, `mix` and `finish` are the seam that every execution goes through, whether it
runs whole images, packed rows or a few tokens of a last block.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from avit_jax.models.fused_attention import MULTIPLE, in_one_kernel
from avit_jax.models.layers import BlockShape, gated, linear

# Finite, so that a row without any live key stays finite; far below any score.
_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)


def scores(
    query: Array, key: Array, bias: Array | None = None, *, scale: float | None = None
) -> Array:
    """Scaled scores in front of the softmax, `[B, H, N, M]` float32.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        bias: `[B, H, N, M]`, added.
        scale: factor on the products; `d ** -0.5` by default.
    """
    # Heads beside images: only so XLA's CPU backend makes one program of scores and softmax
    # (docs/performance/cpu.md).
    query, key = query.swapaxes(1, 2), key.swapaxes(1, 2)
    products = jnp.einsum("bhnd,bhmd->bhnm", query, key, preferred_element_type=jnp.float32)
    products = products * (query.shape[-1] ** -0.5 if scale is None else scale)
    return products if bias is None else products + bias


def mix(
    query: Array,
    key: Array,
    value: Array,
    *,
    live: Array | None = None,
    lengths: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    fused: bool = False,
) -> Array:
    """Values mixed by softmax attention, `[B, N, H, d]`; the softmax is float32 whatever the dtype.

    Args:
        query: `[B, N, H, d]`.
        key: `[B, M, H, d]`.
        value: `[B, M, H, d]`.
        live: `[B, M]` bool, which keys exist. What lies at the others may be anything; where no key
            exists at all, the result is the mean of all values, as published.
        lengths: `[B]` int32, instead of `live`: how many tokens of each image exist, all in front;
            the answers of the others mean nothing. For as many queries as keys.
        bias: `[B, H, N, M]` added to the scores.
        scale: factor on the products of queries and keys; `d ** -0.5` by default.
        fused: one kernel of cuDNN's, see `fused_attention.py`, where there are as many queries as
            keys. A few queries, as of a last block, leave no scores that were worth avoiding.
    """
    fused = fused and query.shape[1] == key.shape[1]
    if fused and live is None:
        return in_one_kernel(query, key, value, bias, None, lengths, scale)
    if lengths is not None:
        live = jnp.arange(key.shape[1]) < lengths[:, None]
    if live is not None:
        # Neither a mask nor a weight of 0 stops NaN. Without any key all scores become equal.
        counted = live | ~live.any(1, keepdims=True)
        key = jnp.where(live[:, :, None, None], key, 0)
        value = jnp.where(counted[:, :, None, None], value, 0)
    if fused:
        return in_one_kernel(query, key, value, bias, counted[:, None, None, :], None, scale)
    products = scores(query, key, bias, scale=scale)
    if live is not None:  # masks are added for the same reason as heads stand beside images
        products = products + jnp.where(live, 0.0, _MASKED)[:, None, None, :]
    weights = jnp.exp(products - lax.stop_gradient(products.max(-1, keepdims=True)))
    value = value.swapaxes(1, 2)
    mixed = jnp.einsum(
        "bhnm,bhmd->bhnd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32
    )
    mixed = mixed / weights.sum(-1, keepdims=True)
    return mixed.astype(value.dtype).swapaxes(1, 2)


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
            heads: `[B, H]` gates of all three, for heads that are left out.
        """
        query, key, value = self.split(self.qkv(rows))
        if heads is not None:
            query, key, value = (
                gated(part, heads[:, None, :, None]) for part in (query, key, value)
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
        lengths: Array | None = None,
        bias: Array | None = None,
    ) -> Array:
        """Values mixed for each query, `[B, N, H, d]`; see `mix` above.

        Args:
            query: `[B, N, H, d]`.
            key: `[B, M, H, d]`.
            value: `[B, M, H, d]`.
            live: `[B, M]` bool, keys that exist; all by default.
            lengths: `[B]` int32, instead: how many exist, all in front.
            bias: `[B, H, N, M]` added to the scores, such as relations of an earlier network.
        """
        return mix(
            query,
            key,
            value,
            live=live,
            lengths=lengths,
            bias=bias,
            scale=self.scale,
            fused=self.fused,
        )

    def places(self, tokens: int) -> int:
        """Places for so many tokens of an image, as `mix` likes them where some may be empty."""
        return tokens + (-tokens % MULTIPLE if self.fused else 0)

    def finish(self, mixed: Array) -> Array:
        """The update `[..., D]` of rows whose mixed values are `[..., H, d]`."""
        return self.proj(self.join(mixed))

    def scores(self, query: Array, key: Array, bias: Array | None = None) -> Array:
        """Scaled scores in front of the softmax, `[B, H, N, M]` float32 (`bias` included)."""
        return scores(query, key, bias, scale=self.scale)

    def class_row(self, rows: Array, *, heads: Array | None = None) -> Array:
        """What the class token attends to, `[B, H, N]` float32, all tokens being there."""
        query, key, _ = self.project(rows, heads=heads)
        return jax.nn.softmax(self.scores(query[:, :1], key))[:, :, 0]

    def _columns(self, x: Array, columns: slice) -> Array:
        kernel, bias = self.qkv.kernel[...], self.qkv.bias
        update = x @ kernel[:, columns].astype(x.dtype)
        return update if bias is None else update + bias[...][columns].astype(x.dtype)

    def _placed(self, heads: Array, positions: Array | None) -> Array:
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
