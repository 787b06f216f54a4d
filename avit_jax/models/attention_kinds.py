"""Kinds of attention: how queries and keys become weights of values, and what that costs.

A kind is one class here and a name in `KINDS`, that of the setting `attention`. It has its own
parameters, if any. `query` and `key` change queries and keys `[..., H, d]` in front of rotary
positions, once for each row; `mix` gets them afterwards.
"""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.errors import UserError
from avit_jax.models import linear_attention, softmax_attention
from avit_jax.models.layers import BlockShape

# Logarithms of temperatures in front of and at the end of training (Swin V2, appendix A1).
_INITIAL_LOGIT_SCALE, LARGEST_LOGIT_SCALE = math.log(10.0), math.log(100.0)
SHORTEST = 1e-6  # of vectors that become unit vectors; shorter ones, such as 0, stay shorter


class Kind(nnx.Module, abc.ABC):
    """What an `Attention` asks of its kind.

    Attributes:
        has_scores: whether there is a score for every pair of query and key, whose softmax weights
            values. Fused kernels form them, and relation reuse of cascades takes them over.
        scale: factor on the products of queries and keys; `d ** -0.5` where it is `None`.
    """

    has_scores: ClassVar[bool] = True
    scale: float | None = None

    def query(self, query: Array) -> Array:
        """Queries `[..., H, d]` as `mix` wants them."""
        return query

    def key(self, key: Array) -> Array:
        """Keys `[..., H, d]` as `mix` wants them."""
        return key

    @abc.abstractmethod
    def mix(self, query: Array, key: Array, value: Array, **options: Any) -> Array:
        """See `Attention.mix`."""

    @abc.abstractmethod
    def scores(self, query: Array, key: Array, bias: Array | None = None) -> Array:
        """See `Attention.scores`."""

    @abc.abstractmethod
    def weights(self, query: Array, key: Array) -> Array:
        """What values are weighted by, `[B, H, N, M]` float32, all keys being there."""

    @staticmethod
    @abc.abstractmethod
    def macs(queries: Any, keys: Any, *, embed_dim: int, head_dim: int) -> Any:
        """Multiply-adds of `mix` for so many queries and keys of an image, all heads together."""


class DotProduct(Kind):
    """Softmax of the products of queries and keys (arXiv 1706.03762)."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        self.scale = shape.attention_scale
        self.fused = shape.fused_attention

    def mix(self, query: Array, key: Array, value: Array, **options: Any) -> Array:
        return softmax_attention.mix(
            query, key, value, **options, scale=self.scale, fused=self.fused
        )

    def scores(self, query: Array, key: Array, bias: Array | None = None) -> Array:
        return softmax_attention.scores(query, key, bias, scale=self.scale)

    def weights(self, query: Array, key: Array) -> Array:
        return jax.nn.softmax(self.scores(query, key))

    @staticmethod
    def macs(queries: Any, keys: Any, *, embed_dim: int, head_dim: int) -> Any:
        return 2.0 * queries * keys * embed_dim


class Cosine(DotProduct):
    """Softmax of the cosines between queries and keys, times a factor that every head learns.

    Swin V2 (arXiv 2111.09883, section 3.2): the factor is `exp(p)`, 1 over a temperature, 10 at
    first and 100 at most. It is part of the queries, so that every kernel for products will do.
    """

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        super().__init__(shape, rngs=rngs)
        self.scale = 1.0
        self.logit_scale = nnx.Param(jnp.full(shape.num_heads, _INITIAL_LOGIT_SCALE, jnp.float32))

    def query(self, query: Array) -> Array:
        factor = jnp.exp(jnp.minimum(self.logit_scale[...], LARGEST_LOGIT_SCALE))
        return _unit(query, factor[:, None])

    def key(self, key: Array) -> Array:
        return _unit(key)


class Linear(Kind):
    """Weights that are products of cosine features, see `linear_attention.py`.

    The features, as many as a head has channels, are learnt. No weight decay draws them towards 0,
    where all tokens would be alike.
    """

    has_scores = False

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        width = shape.embed_dim // shape.num_heads
        self.frequencies = nnx.Param(linear_attention.random_frequencies(rngs.params(), width))
        self.phases = nnx.Param(linear_attention.random_phases(rngs.params(), width))

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
        if bias is not None:
            raise _without_scores()
        if lengths is not None:
            live = jnp.arange(key.shape[1]) < lengths[:, None]
        return linear_attention.mix(query, key, value, *self._random(), live=live)

    def scores(self, query: Array, key: Array, bias: Array | None = None) -> Array:
        raise _without_scores()

    def weights(self, query: Array, key: Array) -> Array:
        return linear_attention.weights(query, key, *self._random())

    def _random(self) -> tuple[Array, Array]:
        return self.frequencies[...], self.phases[...]

    @staticmethod
    def macs(queries: Any, keys: Any, *, embed_dim: int, head_dim: int) -> Any:
        # Features of both, the sum over keys, and what every query reads of it.
        return 2.0 * (queries + keys) * embed_dim * head_dim


KINDS: dict[str, type[Kind]] = {"dot": DotProduct, "cosine": Cosine, "linear": Linear}


def _unit(x: Array, factor: Array | float = 1.0) -> Array:
    """Vectors `[..., d]` of length `factor`, in their dtype by way of float32."""
    wide = x.astype(jnp.float32)
    squares = jnp.maximum(jnp.square(wide).sum(-1, keepdims=True), SHORTEST**2)
    return (wide * (factor * jax.lax.rsqrt(squares))).astype(x.dtype)


def _without_scores() -> UserError:
    return UserError(
        'attention="linear" has no scores that relations could be made of or added to: use '
        '"dot" or "cosine", or switch relation reuse off.'
    )
