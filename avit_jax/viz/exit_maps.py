"""Depth maps inside the exits of a cascade, each on the grid of its exit."""

from __future__ import annotations

import numpy as np
from PIL import Image

from avit_jax.viz.look import Looked
from avit_jax.viz.patches import depth_over, side_near

NOT_REACHED = 216  # a light grey that is no colour of a map


def map_over(looked: Looked, index: int, side: int) -> np.ndarray:
    """The map of one exit over the photograph, uint8 `[side, side, 3]`; grey where it did not run.

    The colours are those of the longest exit's layers, so that they mean the same in all exits.

    Args:
        looked: an image of a model with several exits.
        index: of the exit, from 0.
        side: pixels of the map.
    """
    if index > looked.exit:
        return np.full((side, side, 3), NOT_REACHED, np.uint8)
    depths = looked.exit_maps[index]
    whole = (side_near(side, len(depths)),) * 2  # every patch of the exit has whole pixels
    photograph = Image.fromarray(looked.photograph).resize(whole, Image.Resampling.LANCZOS)
    painted = depth_over(np.asarray(photograph), depths, max(looked.exit_layers))
    return np.asarray(Image.fromarray(painted).resize((side, side), Image.Resampling.NEAREST))


def caption(looked: Looked, index: int) -> str:
    """What a map shows, in words: mean layers per patch, or that the exit was not reached."""
    if index > looked.exit:
        return f"exit {index + 1}: not reached"
    mean, layers = looked.exit_maps[index].mean(), looked.exit_layers[index]
    return f"exit {index + 1}: {mean:.1f} of {layers} layers"
