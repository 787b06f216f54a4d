"""Position tables for another number of patches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


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
