"""Token grids made finer by a fixed linear operator, and the patch kernels of other grids.

DVT (arXiv 2105.15075) resizes features and attention relations by nearest neighbours to a grid in
between, and averages that down to the target. Both steps are linear and treat rows and columns
alike, so all is one matrix `K` `[target, source]` on each axis of the grid. The grid in between
depends on the target alone, as in the published code: 10 takes 14, 14 takes 20.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@functools.cache
def resize_matrix(source: int, target: int) -> np.ndarray:
    """`K` `[target, source]` float32, whose rows sum to 1; see the module's docstring."""
    between = round(10 * target / 7)
    nearest = np.arange(between) * source // between
    matrix = np.zeros((target, source))
    for row in range(target):
        start, stop = row * between // target, -(-(row + 1) * between // target)
        np.add.at(matrix[row], nearest[start:stop], 1 / (stop - start))
    return matrix.astype(np.float32)


def resize_patches(patches: Array, *, source: int, target: int) -> Array:
    """Patch tokens `[..., source ** 2, D]` on a finer grid, `[..., target ** 2, D]`."""
    matrix = jnp.asarray(resize_matrix(source, target), patches.dtype)
    grid = patches.reshape(*patches.shape[:-2], source, source, patches.shape[-1])
    grid = jnp.einsum("tx,...yxd->...ytd", matrix, grid)
    grid = jnp.einsum("ty,...yxd->...txd", matrix, grid)
    return grid.reshape(*patches.shape[:-2], target**2, patches.shape[-1])


def resize_relations(relations: Array, *, prefix: int, source: int, target: int) -> Array:
    """Scores between tokens `[..., N, N]` on a finer grid; those of prefix tokens keep their place.

    Args:
        relations: `N` is `prefix + source ** 2`.
        prefix: tokens in front of the patches.
        source: patches along each side.
        target: the same of the result.
    """
    # `K` on one axis of the grid after the other would be fewer multiply-adds, in products so small
    # that they take twice as long (docs/methods.md).
    matrix = resize_matrix(source, target)
    operator = np.eye(prefix + target**2, prefix + source**2, dtype=np.float32)
    operator[prefix:, prefix:] = np.kron(matrix, matrix)
    operator = jnp.asarray(operator, relations.dtype)
    return operator @ relations @ operator.T


def resize_macs(channels: int, *, source: int, target: int) -> int:
    """Multiply-adds of `resize_patches` with so many channels."""
    return channels * source * target * (source + target)


def relations_macs(maps: int, *, prefix: int, source: int, target: int) -> int:
    """Multiply-adds that `resize_relations` needs on so many maps, one axis after the other."""
    sides = (prefix + source**2) + (prefix + target**2)
    return maps * resize_macs(sides, source=source, target=target)


def executed_relations_macs(maps: int, *, prefix: int, source: int, target: int) -> int:
    """Multiply-adds that `resize_relations` runs, with both axes of the grid in one product."""
    before, after = prefix + source**2, prefix + target**2
    return maps * before * after * (before + after)


def resize_kernel(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel over windows for windows of another size, by pseudo-inverse (arXiv 2212.08013).

    Of all kernels it is the one that answers to windows resized (bilinearly) from the former size
    as the given kernel does to the originals, or comes closest to that.

    Args:
        kernel: `[row, column, ...]`.
        size: rows and columns of the result.
    """
    former = kernel.shape[0]
    if former == size:
        return kernel
    # Linear in the window, and the same for rows and columns.
    matrix = jax.image.resize(jnp.eye(former), (size, former), method="linear", antialias=False)
    inverse = np.linalg.pinv(np.asarray(matrix, np.float64)).T  # [size, former]
    return np.einsum("sx,ty,xy...->st...", inverse, inverse, kernel).astype(np.float32)
