"""Charts of models with several exits: where images stop, and what each exit knows and costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from avit_jax.viz import chart_style
from avit_jax.viz.chart_style import Theme
from avit_jax.viz.palette import OKABE_ITO

_COLOURS = [OKABE_ITO[name] for name in ("sky", "blue", "green", "orange", "vermilion", "purple")]


def stopped(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: shares of the images that stop at each exit, of all and of each class."""
    ordered = sorted(summary["classes"], key=lambda one: one["gmacs"])
    classes, note = chart_style.ends(ordered, "cheapest", "dearest")
    every = {"name": "all", "images": summary["images"], "stopped": summary["exits"]["stopped"]}
    rows = [*classes, every]
    height = chart_style.class_height(rows) + 0.3
    figure, axis = chart_style.canvas(theme, "", "share of the images (%)", height=height)
    places = chart_style.class_axis(axis, rows, theme)
    shares = 100 * np.array([one["stopped"] for one in rows])
    before = np.cumsum(shares, 1) - shares
    for index in range(shares.shape[1]):
        colour = _COLOURS[index % len(_COLOURS)]
        axis.barh(
            places,
            shares[:, index],
            0.72,
            left=before[:, index],
            color=colour,
            label=f"exit {index + 1}",
        )
    axis.set_xlim(0, 101)
    axis.set_title(note, fontsize=8, loc="left")
    figure.legend(loc="outside lower left", ncols=4, fontsize=7, frameon=False, handlelength=1.4)
    return chart_style.png(figure, theme)


def accuracy(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of right answers over GMACs, if each exit has to answer at the latest."""
    exits = summary["exits"]
    costs = 100 * np.asarray(exits["gmacs"]) / summary["gmacs_dense"]
    right = 100 * np.asarray(exits["top1"])
    figure, axis = chart_style.canvas(theme, "right (%)", "GMACs, of dense (%)")
    axis.plot(costs, right, color=theme.ink, linewidth=1.1)
    for index, (cost, share) in enumerate(zip(costs, right, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        axis.plot(cost, share, "o", color=colour, markersize=7, clip_on=False)
        axis.annotate(
            f"exit {index + 1}",
            (cost, share),
            xytext=(5, -10),
            textcoords="offset points",
            fontsize=8,
        )
    axis.margins(0.12)
    return chart_style.png(figure, theme)
