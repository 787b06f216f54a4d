"""Whether difficult images cost more: the cost of each image against the model's confidence.

Low confidence stands for difficulty, because it is known for any image; where the class is known as
well, right and wrong answers are compared too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_GROUPS, LEAST_IMAGES = 6, 4  # groups of images by confidence, and images in each
_ALIKE = 1e-6  # values that differ by less are equal but for rounding


def relation(
    confidence: np.ndarray, share: np.ndarray, right: Sequence[bool | None]
) -> dict[str, Any]:
    """How cost depends on confidence and on the answer being right.

    Args:
        confidence: of the answers `[M]`, 0..1.
        share: of the dense cost that each image used `[M]`.
        right: whether each answer is, `None` where nobody knows.

    Returns:
        `correlation` (Spearman's, of cost and confidence: below 0 where doubtful images cost more;
        `None` where either is constant), `groups` (images by confidence, most doubtful first:
        `images`, `confidence` and `share`, the mean share of the dense cost) and `right` and
        `wrong` (`images` and `share`; `None` where there is no such image).
    """
    count = max(1, min(MOST_GROUPS, len(share) // LEAST_IMAGES))
    groups = np.array_split(np.argsort(confidence, kind="stable"), count)
    answers = {
        name: np.array([one is wanted for one in right])
        for name, wanted in (("right", True), ("wrong", False))
    }
    return {
        "correlation": _rank_correlation(confidence, share),
        "groups": [
            _group(share[chosen]) | {"confidence": float(confidence[chosen].mean())}
            for chosen in groups
        ],
        **{name: _group(share[them]) if them.any() else None for name, them in answers.items()},
    }


def in_words(found: dict[str, Any]) -> str:
    """The result of `relation` in one line of text."""
    if found["correlation"] is None:
        return "all images cost the same, or all answers are equally sure"
    text = f"correlation with confidence {found['correlation']:+.2f}"
    if found["right"] and found["wrong"]:
        text += (
            f"; right {found['right']['share']:.0%}, wrong {found['wrong']['share']:.0%} of dense"
        )
    return text


def _group(shares: np.ndarray) -> dict[str, Any]:
    return {"images": len(shares), "share": float(shares.mean())}


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if min(np.ptp(first), np.ptp(second)) < _ALIKE:
        return None
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks by size, counted from 1; equal values get the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]
