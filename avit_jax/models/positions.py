"""How tokens know where they are: a table added to them, or a change of queries and keys.

A way to encode positions is one class here. Its `table` is added to the embedded tokens once, its
`place` acts on the queries and keys of every block. A position is a token's number in its image,
class token first. Positions travel with rows: wherever tokens were left out and the others moved
together, `place` is told which token each row is.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

# Embedded patches start with a standard deviation of about 1, a table of sinusoids has a root mean
# square of 0.7: learnt positions and prefix tokens start with half of that spread, so that they are
# neither lost among the patches nor drown them.
# The dtype is said here: JAX takes float64 otherwise, where its wide types are on.
token_initializer = nnx.initializers.truncated_normal(0.5, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class PositionEncoding:
    """A way to encode positions; this one tells tokens nothing about where they are.

    Attributes:
        acts_on_heads: whether `place` does anything, so that rows have to know their positions.
    """

    acts_on_heads: ClassVar[bool] = False

    def table(self, num_tokens: int, embed_dim: int, rngs: nnx.Rngs) -> Array | None:
        """`[1, N, D]` float32, added to the embedded tokens; `None` if nothing is."""
        return None

    @property
    def is_trained(self) -> bool:
        """Whether the table is a parameter that is learnt."""
        return False

    def place(self, heads: Array, positions: Array) -> Array:
        """Queries or keys `[..., H, d]` of rows at `positions` `[...]`, told where they are."""
        return heads


@dataclasses.dataclass(frozen=True)
class LearnedPositions(PositionEncoding):
    """A vector for each token, learnt (ViT, arXiv 2010.11929)."""

    def table(self, num_tokens: int, embed_dim: int, rngs: nnx.Rngs) -> Array:
        return token_initializer(rngs.params(), (1, num_tokens, embed_dim))

    @property
    def is_trained(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True)
class SinusoidPositions(PositionEncoding):
    """A fixed table of sines and cosines of the token's number (arXiv 1706.03762)."""

    def table(self, num_tokens: int, embed_dim: int, rngs: nnx.Rngs) -> Array:
        return jnp.asarray(sinusoids(num_tokens, embed_dim))


def sinusoids(num_tokens: int, embed_dim: int) -> np.ndarray:
    """Table of positions `[1, N, D]` float32 (arXiv 1706.03762): sines at even, cosines at odd."""
    place, channel = np.arange(num_tokens)[:, None], np.arange(embed_dim)
    angle = place / 10_000 ** (2 * (channel // 2) / embed_dim)
    return np.where(channel % 2, np.cos(angle), np.sin(angle))[None].astype(np.float32)
