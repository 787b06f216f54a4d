"""Grids of patches: those that tile an image, and those of cascades, which need not."""

from __future__ import annotations

from typing import Any

from avit_jax.errors import UserError
from avit_jax.models.soft_split import SPLITS, Split, windows

# First soft splits of the published cascade (DVT's code), by pixels and grid.
_PUBLISHED = {(224, 7): Split(14, 8, 3), (224, 10): Split(11, 6, 5)}
# The later splits, and those of the same windows that leave the border out: 13 tokens of 28.
_LATER = (SPLITS[1:], (SPLITS[1], SPLITS[2]._replace(pad=0)))


def check_tiled(shape: Any) -> None:
    """Raises UserError unless a backbone's patches tile its images."""
    if shape.image_size % shape.patch_size:
        nearest = max(1, shape.image_size // shape.patch_size) * shape.patch_size
        raise UserError(
            f"image_size {shape.image_size} is not a multiple of patch_size {shape.patch_size}: "
            f"use {nearest} or another patch_size."
        )


def grid_of(image_size: int, splits: tuple[Split, ...]) -> int:
    """Tokens along each side behind all soft splits."""
    for split in splits:
        image_size = windows(image_size, split)
    return image_size


def splits_of(image_size: int, grid: int) -> tuple[Split, ...]:
    """Soft splits that make a grid of tokens: of the published ones the first is changed.

    Its stride is the largest that gives the grid, from the one at which windows are no more than
    the later splits can take; its windows overlap as the published ones do (7 pixels every 4), and
    of the paddings it has the one that is nearest to even. Grids that no such split gives, as one
    less than the finest, are made by a last split that is not padded.

    Raises:
        UserError: there is none.
    """
    if found := _splits_of(image_size, grid):
        return found
    others = sorted(range(1, image_size // 16 + 1), key=lambda one: (abs(one - grid), one))
    near = next((str(one) for one in others if _splits_of(image_size, one)), "another grid")
    raise UserError(
        f"images of {image_size} pixels have no soft splits to {grid} x {grid} tokens: write "
        f"{near} instead, or larger images."
    )


def _splits_of(image_size: int, grid: int) -> tuple[Split, ...] | None:
    if known := _PUBLISHED.get((image_size, grid)):
        return (known, *SPLITS[1:])
    for later in _LATER:
        for stride in range(-(-image_size // (4 * grid)), 0, -1):
            size = -(-7 * stride // 4)
            even = -(-(size - stride) // 2)
            for pad in sorted(range(size), key=lambda pad: abs(pad - even)):
                splits = (Split(size, stride, pad), *later)
                if grid_of(image_size, splits) == grid:
                    return splits
    return None
