"""Thresholds of confidence that let given shares of the images leave at each exit.

The published family (DVT's and MSDNet's code; Huang et al., arXiv 1703.09844, section 4): a single
number says how the images are spread over the exits, and the confidences of calibration images say
at which thresholds they leave so. Pure NumPy, on arrays with the exits in front.
"""

from __future__ import annotations

import numpy as np

NOBODY, EVERYBODY = 1e8, -1e8  # thresholds, as upstream writes them


def confidences(logits: np.ndarray) -> np.ndarray:
    """The largest probability, `[E, B]` float32, of logits `[E, B, C]`."""
    wide = np.asarray(logits, np.float32)
    wide = np.exp(wide - wide.max(-1, keepdims=True))
    return (wide / wide.sum(-1, keepdims=True)).max(-1)


def shares(position: float, exits: int) -> np.ndarray:
    """Shares of the images that are to leave at each exit, `[E]` float32, which add up to 1.

    Args:
        position: upstream's 1 to 59: below 20 most leave early, above 20 late; the shares are a
            geometric series with quotient `position / 20`.
        exits: E.
    """
    # Rounded where upstream rounds: some quotas are on the border of a whole number.
    logarithm = np.float32(np.log(np.float64(np.float32(position / 20))))
    powers = logarithm * np.arange(1, exits + 1, dtype=np.float32)
    series = np.exp(powers.astype(np.float64)).astype(np.float32)
    return series / series.sum()


def quotas(images: int, shares: np.ndarray) -> np.ndarray:
    """Whole images of these shares, `[E]` int64, rounded down as upstream does."""
    return np.floor(np.float32(images) * shares).astype(np.int64)


def thresholds(confidences: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Thresholds `[E]` float32 at which the quotas of these images leave.

    Exit by exit, among the images that are still there, the threshold is the confidence of the last
    one within the quota; whoever has as much leaves with it. Where the quota is 0 nobody leaves, at
    the last exit all do. Where a quota is larger than what is left, everybody leaves.

    Args:
        confidences: `[E, B]` of calibration images.
        shares: `[E]` of the images.
    """
    exits, images = confidences.shape
    found = np.full(exits, NOBODY, np.float32)
    found[-1] = EVERYBODY
    here = np.ones(images, bool)
    for number, quota in enumerate(quotas(images, shares)[:-1]):
        left = np.sort(confidences[number][here])[::-1]
        if not quota or not len(left):
            continue
        found[number] = left[min(quota, len(left)) - 1]
        here &= confidences[number] < found[number]
    return found


def exits(confidences: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The exit that answers for each image, from 0, `[B]`: the first that is sure enough.

    Args:
        confidences: `[E, B]`.
        thresholds: `[E]`, the last of which everything reaches.
    """
    return (confidences >= thresholds[:, None]).argmax(0)
