"""The pre-norm transformer block in two half-steps, `attend` and `feed`, that obey `Gates`.

Every method strings these blocks together; none has a block of its own. A block keeps no random
state: dropout and stochastic depth take a key, and run only where one is given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.errors import UserError
from avit_jax.models.attention import Attention, without_dropped_heads
from avit_jax.models.layers import (
    BlockShape,
    Mlp,
    drop_path,
    dropout,
    gated,
    hidden_heads,
)
from avit_jax.models.norms import NORMS, Statistics, normalised, of_images
from avit_jax.models.token_mixer import TokenMlp
from avit_jax.types import Gates


def kept_updates(drop_path_rate: float | Array, key: Array, batch: int) -> Array:
    """Which images keep the update of each half, `[2, B]` bool: what a block draws from `key`."""
    return jnp.stack([_drawn(drop_path_rate, _keys(key, half)[1], batch) for half in (0, 1)])


class Block(nnx.Module):
    """Pre-norm block. Call `attend`, then `feed`; both add their update to `x` `[B, N, D]`."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        self.dropout_rate = shape.dropout_rate
        norm = functools.partial(
            NORMS[shape.norm], eps=shape.norm_eps, dtype=shape.dtype, rngs=rngs
        )
        self.norm1 = norm(shape.embed_dim)
        if shape.mixer == "mlp":
            self.mlp_tokens = TokenMlp(shape, rngs=rngs)
        else:
            self.attention = Attention(shape, rngs=rngs)
        self.norm2 = norm(shape.embed_dim + shape.extra_dim)
        self.mlp = Mlp(shape, rngs=rngs)

    @property
    def keeps_slots(self) -> bool:
        """Whether tokens are mixed by their slots, and not by attention: rows cannot move then."""
        return hasattr(self, "mlp_tokens")

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
            normed: `x` behind `norm1` where the caller has computed it already to decide the gates.
            positions: `[B, N]`, which token of its image each row is; in order by default.
            bias: `[B, H, N, N]` added to the scores (relations of an earlier network).
            drop_path_rate: probability of dropping the whole update of an image.
            key: draws of dropout and stochastic depth; without one, neither runs.
        """
        gates = gates or Gates()
        normed = of_images(self.norm1, x, gates.tokens) if normed is None else normed
        normed = _mask_tokens(normed, gates)
        if self.keeps_slots:
            update = _mask_tokens(self.mlp_tokens(normed), gates)
            return x + self._finish(update, gates, 0, drop_path_rate, key), _no_scores
        attention = self.attention
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
        statistics: Statistics | None = None,
        drop_path_rate: float | Array = 0.0,
        key: Array | None = None,
    ) -> Array:
        """The MLP half; `extra` `[B, N, extra_dim]` is joined to `x` in front of the norm.

        `statistics` are those of `norm2` where `x` is not all that is left of an image's tokens.
        """
        gates = gates or Gates()
        inputs = x if extra is None else jnp.concatenate([x, extra], axis=-1)
        if statistics is None:
            normed = of_images(self.norm2, inputs, gates.tokens)
        else:
            normed = normalised(self.norm2, inputs, statistics)
        normed = _mask_tokens(normed, gates)
        units = None
        if gates.heads is not None and gates.head_effect == "channels":
            heads = jnp.repeat(gates.heads, x.shape[-1] // gates.heads.shape[-1], axis=-1)
            heads = jnp.pad(heads, ((0, 0), (0, inputs.shape[-1] - x.shape[-1])), constant_values=1)
            normed = gated(normed, heads[:, None, :])
        elif gates.heads is not None and gates.head_effect == "hidden":
            units = gates.heads[:, hidden_heads(self.mlp.fc1.out_features, gates.heads.shape[-1])]
        return x + self._finish(self.mlp(normed, units=units), gates, 1, drop_path_rate, key)

    def _finish(
        self, update: Array, gates: Gates, half: int, drop_path_rate: float | Array, key
    ) -> Array:
        """Dropout, the gates that act on an update, stochastic depth."""
        if key is not None:
            dropout_key, path_key = _keys(key, half)
            if self.dropout_rate:
                update = dropout(update, self.dropout_rate, dropout_key)
            kept = _drawn(drop_path_rate, path_key, len(update))
            update = drop_path(update, drop_path_rate, kept[:, None, None])
        if gates.selected is not None:
            update = gated(update, gates.selected[:, :, None])
        if gates.halves is not None:
            update = gated(update, gates.halves[:, half, None, None])
        return update


def _no_scores() -> Array:
    raise UserError(
        "with mixer 'mlp' there are no attention scores to show: leave out what asks for them."
    )


def _keys(key: Array, half: int) -> Array:
    """Those of dropout and of stochastic depth in one half."""
    return jax.random.split(jax.random.fold_in(key, half))


def _drawn(drop_path_rate: float | Array, key: Array, batch: int) -> Array:
    return jax.random.bernoulli(key, 1.0 - drop_path_rate, (batch,))


def _both(tokens: Array | None, selected: Array | None) -> Array | None:
    """Keys `[B, N]` bool that both gates let through; `None` where neither says anything."""
    given = [gate > 0 for gate in (tokens, selected) if gate is not None]
    return functools.reduce(jnp.logical_and, given) if given else None


def _mask_tokens(normed: Array, gates: Gates) -> Array:
    if gates.tokens is None:
        return normed
    return jnp.where((gates.tokens > 0)[:, :, None], normed, 0)
