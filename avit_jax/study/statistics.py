"""Means and differences with their uncertainty: Student's t, and the signs of differences.

Nothing is assumed of figures but that their mean is nearly normal. One figure has no uncertainty
that could be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """A mean, and how far it can be trusted.

    Attributes:
        mean: of all figures.
        half_width: of its 95 % confidence interval; `None` for a single figure.
        count: of figures.
    """

    mean: float
    half_width: float | None
    count: int


def mean_of(figures: Sequence[float]) -> Mean:
    """The mean of at least one figure, with Student's t interval."""
    values = np.asarray(figures, np.float64)
    if len(values) < 2:
        return Mean(float(values.mean()), None, len(values))
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    quantile = stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    return Mean(float(values.mean()), float(quantile * error), len(values))


def paired_t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of the mean difference being 0; `None` where all are equal, or only one."""
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or np.ptp(values) == 0.0:
        return None
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def sign_test(differences: Sequence[float]) -> dict[str, Any]:
    """How many differences are above and below 0, and the two-sided p-value of that by chance.

    Ties say nothing and are left out; of ties alone the p-value is 1.
    """
    values = np.asarray(differences, np.float64)
    above, below = int((values > 0).sum()), int((values < 0).sum())
    count = above + below
    p_value = float(stats.binomtest(above, count).pvalue) if count else 1.0
    return {"above": above, "below": below, "p_value": p_value}
