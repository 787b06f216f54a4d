"""A temperature for each exit, so that its confidences are the chances that it is right.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv 1706.04599), section 4.2:
the logits are divided by one number that minimises the cross-entropy of images with labels.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = 0.05, 20.0


def fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes the labels of these images most probable.

    Its logarithm is given a normal prior around 0 of width 1, which weighs as much as one image
    does: where an exit is right about every image, no temperature is low enough for the labels
    alone, and a few images say little about how sure it may be.

    Args:
        logits: `[n, C]` of one exit.
        labels: `[n]` whole numbers.
    """
    wide = np.asarray(logits, np.float64)
    images = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        told = log_softmax(wide / np.exp(logarithm), -1)[images, labels]
        return logarithm**2 / 2 - told.sum()

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded")
    return float(np.exp(found.x))
