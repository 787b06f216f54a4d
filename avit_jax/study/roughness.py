"""How much depth maps vary from patch to patch, as one number."""

from __future__ import annotations

import numpy as np


def roughness(depths: np.ndarray) -> float | None:
    """Geary's ratio of depth maps (Geary 1954), over all images together.

    The mean squared difference of patches that lie beside or below each other, over twice the
    variance between the patches of an image. Neighbours that have nothing to do with each other
    give 1, smooth maps less, a chequerboard nearly 2. It says nothing of how deep tokens go, so
    models of different costs compare.

    Args:
        depths: `[B, G, G]`, layers that ran for each patch.

    Returns:
        `None` where all patches of each image go equally deep.
    """
    depths = np.asarray(depths, np.float64)
    beside, below = np.diff(depths, axis=2), np.diff(depths, axis=1)
    neighbours = np.concatenate([beside.ravel(), below.ravel()])
    variance = (
        depths.reshape(len(depths), -1).var(axis=1, ddof=1).mean() if depths[0].size > 1 else 0.0
    )
    return float((neighbours**2).mean() / (2 * variance)) if variance > 0 else None
