"""How tokens know where they are: a table added to them, or a change of queries and keys.

A way to encode positions is one class here and a name in `ENCODINGS`. Its `table` is added to the
embedded tokens once, its `place` acts on the queries and keys of every block. A position is a
token's number in its image, prefix tokens first, then the patches row by row. Positions travel with
rows: wherever tokens were left out and the others moved together, `place` is told which token each
row is.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax.errors import UserError

# Embedded patches start with a standard deviation of about 1, a table of sinusoids has a root mean
# square of 0.7: learnt positions and prefix tokens start with half of that spread, so that they are
# neither lost among the patches nor drown them.
# The dtype is said here: JAX takes float64 otherwise, where its wide types are on.
token_initializer = nnx.initializers.truncated_normal(0.5, dtype=jnp.float32)
_WAVELENGTHS = 10_000.0  # from 2 pi to so many times that, in tokens (arXiv 1706.03762)


@dataclasses.dataclass(frozen=True)
class PositionEncoding:
    """A way to encode positions; this one tells tokens nothing about where they are.

    Attributes:
        prefix: tokens in front of the patches; of a table, those that it has places for.
        grid: patches along each side of the image.
        acts_on_heads: whether `place` does anything, so that rows have to know their positions.
        is_trained: whether the table is learnt; if not, it follows from `prefix` and `grid`.
    """

    prefix: int = 0
    grid: int = 0
    acts_on_heads: ClassVar[bool] = False
    is_trained: ClassVar[bool] = False

    @classmethod
    def check(cls, embed_dim: int, num_heads: int) -> None:
        """Raises UserError unless so many channels and heads can hold such positions."""

    def table(self, embed_dim: int, rngs: nnx.Rngs | None) -> Array | None:
        """`[1, N, D]` float32, added to the embedded tokens; `None` if nothing is.

        Only what is learnt draws from `rngs`.
        """
        return None

    def place(self, heads: Array, positions: Array | None) -> Array:
        """Queries or keys `[..., H, d]` of rows at `positions` `[...]`, told where they are.

        Without positions rows are the first tokens of their image, in order.
        """
        return heads


@dataclasses.dataclass(frozen=True)
class LearnedPositions(PositionEncoding):
    """A vector for each token, learnt (ViT, arXiv 2010.11929)."""

    is_trained = True

    def table(self, embed_dim: int, rngs: nnx.Rngs) -> Array:
        size = (1, self.prefix + self.grid**2, embed_dim)
        return token_initializer(rngs.params(), size)


@dataclasses.dataclass(frozen=True)
class SinusoidPositions(PositionEncoding):
    """A fixed table of sines and cosines of the token's number (arXiv 1706.03762)."""

    def table(self, embed_dim: int, rngs: nnx.Rngs | None) -> Array:
        return jnp.asarray(sinusoids(self.prefix + self.grid**2, embed_dim))


@dataclasses.dataclass(frozen=True)
class Sinusoid2dPositions(PositionEncoding):
    """A fixed table: half of the channels for the column, half for the row, 0 for prefix tokens.

    As masked autoencoders have it (arXiv 2111.06377): sines, then cosines, of the column first.
    """

    @classmethod
    def check(cls, embed_dim: int, num_heads: int) -> None:
        if embed_dim % 4:
            raise UserError(
                "pos_embed 'sinusoidal_2d' has sines and cosines of rows and of columns, but "
                f"embed_dim {embed_dim} is not a multiple of 4: choose one that is, or pos_embed "
                "sinusoidal."
            )

    def table(self, embed_dim: int, rngs: nnx.Rngs | None) -> Array:
        waves = embed_dim // 4
        angle = np.arange(self.grid)[:, None] / _WAVELENGTHS ** (np.arange(waves) / waves)
        along = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        row, column = np.divmod(np.arange(self.grid**2), self.grid)
        patches = np.concatenate([along[column], along[row]], axis=1)
        return jnp.asarray(np.pad(patches, ((self.prefix, 0), (0, 0)))[None], jnp.float32)


@dataclasses.dataclass(frozen=True)
class RotaryPositions(PositionEncoding):
    """Queries and keys are turned by angles, so that scores depend on how far patches are apart.

    Channels i and i + d / 2 of a head are a pair that is turned; prefix tokens have no place and
    are not. Here places are patches' numbers, row by row (arXiv 2104.09864).

    Attributes:
        axes: numbers that a place has; each turns as many pairs.
        base: ratio, but for one step, of the fastest turning pair to the slowest.
    """

    acts_on_heads = True
    axes: ClassVar[int] = 1
    base: ClassVar[float] = 10_000.0

    @classmethod
    def check(cls, embed_dim: int, num_heads: int) -> None:
        width, pairs = embed_dim // num_heads, 2 * cls.axes
        if width % pairs:
            raise UserError(
                f"pos_embed 'rope_{cls.axes}d' turns pairs of channels, so a head needs a multiple "
                f"of {pairs} of them, but embed_dim {embed_dim} / num_heads {num_heads} is {width}:"
                " choose other numbers, or another pos_embed."
            )

    def places(self) -> np.ndarray:
        """Where each patch is, `[grid * grid, axes]`."""
        return np.arange(self.grid**2)[:, None]

    def turns(self, width: int) -> np.ndarray:
        """Cosines, then sines, of each token's angles in heads of `width` d, `[N, d]` float32."""
        pairs = width // 2 // self.axes
        speeds = self.base ** (-np.arange(pairs) / pairs)
        angles = (self.places()[:, :, None] * speeds).reshape(self.grid**2, -1)
        angles = np.pad(angles, ((self.prefix, 0), (0, 0)))
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def place(self, heads: Array, positions: Array | None) -> Array:
        turns = self.turns(heads.shape[-1])
        if positions is None:
            turns = jnp.asarray(turns[: heads.shape[-3]])
        else:  # what lies between images may have any number
            turns = jnp.asarray(turns).at[positions].get(mode="clip")
        cosine, sine = jnp.split(turns[..., None, :], 2, axis=-1)
        one, other = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
        turned = [one * cosine - other * sine, other * cosine + one * sine]
        return jnp.concatenate(turned, axis=-1).astype(heads.dtype)


@dataclasses.dataclass(frozen=True)
class Rotary2dPositions(RotaryPositions):
    """Half of a head's pairs are turned by the patch's row, half by its column (arXiv 2403.13298).

    Angles are those of the axial kind there, and so is the base.
    """

    axes = 2
    base = 100.0

    def places(self) -> np.ndarray:
        return np.stack(np.divmod(np.arange(self.grid**2), self.grid), axis=1)


ENCODINGS: dict[str, type[PositionEncoding]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidPositions,
    "sinusoidal_2d": Sinusoid2dPositions,
    "rope_1d": RotaryPositions,
    "rope_2d": Rotary2dPositions,
    "none": PositionEncoding,
}


def sinusoids(num_tokens: int, embed_dim: int) -> np.ndarray:
    """Table of positions `[1, N, D]` float32 (arXiv 1706.03762): sines at even, cosines at odd."""
    place, channel = np.arange(num_tokens)[:, None], np.arange(embed_dim)
    angle = place / _WAVELENGTHS ** (2 * (channel // 2) / embed_dim)
    return np.where(channel % 2, np.cos(angle), np.sin(angle))[None].astype(np.float32)
