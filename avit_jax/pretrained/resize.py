"""Position tables for another number of patches."""

from __future__ import annotations

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.models.shape import Shape

_ROUNDING = 1e-3  # of fixed tables in files of float16 and the like
_logger = logging.getLogger(__name__)


def positions_for(table: np.ndarray, shape: Shape, prefix: int) -> np.ndarray:
    """A table of positions for the grid of `shape`: learnt ones interpolated, fixed ones computed.

    A table that `shape` has as a fixed one is taken for that if it is so on its own grid; any other
    was learnt, or has been interpolated before, and is interpolated.

    Args:
        table: `[1, prefix + side * side, D]`, prefix first.
        shape: of the backbone that it is for.
        prefix: places of class and distillation tokens, which are kept as they are.
    """
    grid, side = shape.grid, math.isqrt(table.shape[1] - prefix)
    if side == grid:
        return table
    encoding = shape.position_encoding
    if not encoding.is_trained:
        encoding = dataclasses.replace(encoding, prefix=prefix)
        own = dataclasses.replace(encoding, grid=side).table(shape.embed_dim, None)
        if own is not None and np.allclose(table, own, atol=_ROUNDING):
            _logger.info("fixed positions of %d x %d patches are computed.", grid, grid)
            return np.asarray(encoding.table(shape.embed_dim, None))
    _logger.info(
        "positions of %d x %d patches are interpolated to %d x %d.", side, side, grid, grid
    )
    return resize_positions(table, grid=grid, num_prefix_tokens=prefix)


def resize_positions(table: np.ndarray, *, grid: int, num_prefix_tokens: int) -> np.ndarray:
    """A table of positions interpolated over the image (antialiased bicubic, a = -0.5).

    Args:
        table: `[1, N, D]`; the rows after the prefix are a square grid of patches, row by row.
        grid: patches along each side of the new table.
        num_prefix_tokens: rows in front (class token, distillation token), kept as they are.

    Returns:
        `[1, num_prefix_tokens + grid * grid, D]`, float32; the table itself if its grid fits.
    """
    prefix, patches = table[:, :num_prefix_tokens], table[:, num_prefix_tokens:]
    side, channels = math.isqrt(patches.shape[1]), patches.shape[2]
    if side == grid:
        return table
    image = jnp.asarray(patches.reshape(side, side, channels), jnp.float32)
    image = jax.image.resize(image, (grid, grid, channels), method="bicubic", antialias=True)
    patches = np.asarray(image).reshape(1, grid * grid, channels)
    return np.concatenate([prefix.astype(np.float32), patches], axis=1)
