"""Figures over GMACs as means over seeds with error bars, a curve for each of what is compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from avit_jax.viz.palette import GREY, OKABE_ITO

COLOURS = (*OKABE_ITO.values(), GREY, "#000000")
MARKERS = "os^Dv<>p"


def mean_curve(
    axes,
    gmacs: np.ndarray,
    values: np.ndarray,
    bars: np.ndarray | None,
    *,
    label: str,
    colour: str,
    marker: str = "o",
    seeds: tuple[np.ndarray, np.ndarray] | None = None,
    **style: Any,
) -> None:
    """Draw one curve.

    Args:
        axes: of Matplotlib.
        gmacs: mean costs, `[P]`.
        values: means of what is drawn, `[P]`.
        bars: half lengths of its error bars, `[P]`, NaN for none; `None` for none at all.
        label: in the legend.
        colour: of line, points and bars.
        marker: of the means.
        seeds: costs and values of single seeds, of any shape, drawn as faint points behind.
        **style: of Matplotlib's `errorbar`.
    """
    if seeds is not None:
        axes.plot(*(np.ravel(one) for one in seeds), ".", color=colour, alpha=0.4)
    look = {"color": colour, "marker": marker, "markersize": 4, "capsize": 3, "elinewidth": 1}
    axes.errorbar(gmacs, values, bars, label=label, **(look | style))
