"""Photographs patch by patch: values laid over them, and patches dimmed that were not computed."""

from __future__ import annotations

import numpy as np

from avit_jax.viz import palette

SHADING = 0.45  # how strongly the photograph shows through a depth map, 0..1
LUMINANCE = np.array([0.299, 0.587, 0.114])  # of red, green and blue, as in ITU-R BT.601
# Skipped patches go this far towards a grey that is neither a white nor a black background.
_SKIPPED_GREY, _SKIPPED_STRENGTH = (198, 204, 214), 0.82


def on_grid(values: np.ndarray, grid: int) -> np.ndarray:
    """Values of tokens `[..., N]` at the places of their patches, `[..., grid, grid]`.

    The class and distillation tokens, which come first, are left out.
    """
    return values[..., -(grid**2) :].reshape(*values.shape[:-1], grid, grid)


def side_near(pixels: int, grid: int) -> int:
    """Side of a picture of at most `pixels` in which every patch has whole pixels."""
    return grid * max(1, pixels // grid)


def depth_over(photograph: np.ndarray, depths: np.ndarray, depth: int) -> np.ndarray:
    """The depth map over the photograph, in colours that can be read off the legend.

    A photograph laid half-transparently under the map would make dark patches look shallow. So only
    its differences of luminance *inside* each patch are added to the patch's colour, and the mean
    colour of a patch is the legend's.

    Args:
        photograph: uint8 `[S, S, 3]`; the grid divides S.
        depths: number of layers that ran for each patch, int `[grid, grid]`.
        depth: number of layers L of the model.

    Returns:
        uint8 `[S, S, 3]`.
    """
    grid = len(depths)
    size = len(photograph) // grid
    luminance = (photograph @ LUMINANCE).reshape(grid, size, grid, size)
    inside = luminance - luminance.mean((1, 3), keepdims=True)
    colours = palette.paint(depths, depth)[:, None, :, None].astype(np.float64)
    blended = colours + SHADING * inside[..., None]
    return np.rint(blended).clip(0, 255).astype(np.uint8).reshape(photograph.shape)


def dimmed(photograph: np.ndarray, computed: np.ndarray) -> np.ndarray:
    """The photograph `[S, S, 3]` with the patches almost grey that were not computed.

    Args:
        photograph: pixels in 0..255; the grid divides S.
        computed: bool `[..., grid, grid]`, such as one grid for each layer.

    Returns:
        uint8 `[..., S, S, 3]`.
    """
    size = len(photograph) // computed.shape[-1]
    grey = np.array(_SKIPPED_GREY) * _SKIPPED_STRENGTH
    covered = np.rint(photograph * (1 - _SKIPPED_STRENGTH) + grey).astype(np.uint8)
    shown = computed.repeat(size, -1).repeat(size, -2)[..., None]
    return np.where(shown, np.rint(photograph).astype(np.uint8), covered)
