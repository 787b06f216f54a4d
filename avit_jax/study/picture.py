"""A study as a picture: accuracy over GMACs, with error bars over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from avit_jax.checkpoints.operating_points import LEARNT
from avit_jax.study.cells import short_names
from avit_jax.viz.matplotlib_figure import grid_behind_data, new_figure, write_png
from avit_jax.viz.mean_curves import COLOURS, MARKERS, mean_curve

COLUMNS = 3  # of panels


def draw(settings: Sequence[Mapping[str, Any]], file: Path) -> Path:
    """Draw a curve for each option of the first axis, a panel for each of all other options.

    Points are the means over seeds at the budgets, a star the model as it learnt to be.

    Args:
        settings: from `summary.settings_of`, at least one.
        file: of the picture.
    """
    axes = list(settings[0]["labels"])
    curves: dict[tuple[str, ...], dict[str, list[Mapping[str, Any]]]] = {}
    for one in settings:
        first, *others = one["labels"].values()
        curves.setdefault(tuple(others), {}).setdefault(first, []).append(one)
    columns = min(COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    figure = new_figure(2.0 + 4.2 * columns, 0.6 + 3.6 * rows, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    options = list(dict.fromkeys(one["labels"][axes[0]] for one in settings))
    looks = {
        label: {"colour": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
        for n, label in enumerate(options)
    }
    named = short_names(axes)
    for panel, (others, by_label) in zip(panels, curves.items(), strict=False):
        for label, points in by_label.items():
            _curve(panel, points, label, looks[label])
        panel.set(xlabel="GMACs per image", ylabel="top-1, % (bars: 95 % over seeds)")
        panel.set_title(", ".join(others) or None, fontsize=9)
        panel.xaxis.set_major_locator(MaxNLocator(5))  # numbers of six digits stand side by side
        grid_behind_data(panel)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(max(low, -2), min(high, 102))  # bars may be longer than what is possible
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    handles = {
        text: handle
        for panel in panels
        for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        title=named[axes[0]],
        loc="outside right upper",
        frameon=False,
    )
    write_png(figure, file, dots_per_inch=150)
    return file


def _curve(panel, points: Sequence[Mapping[str, Any]], label: str, look: Mapping[str, str]) -> None:
    budgets = sorted(
        (one for one in points if one["point"] != LEARNT), key=lambda one: one["gmacs"]["mean"]
    )
    learnt = [one for one in points if one["point"] == LEARNT]
    shown = budgets or learnt  # a model without a dial has its own point alone
    mean_curve(panel, *_values(shown), label=label, **look)
    if budgets and learnt:
        star = {"colour": look["colour"], "marker": "*", "markersize": 11, "linestyle": "none"}
        mean_curve(panel, *_values(learnt), label="_as learnt", **star)


def _values(points: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean costs, mean top-1 and half widths of its intervals, the latter two in percent."""
    halves = [one["top1"]["half_width"] for one in points]
    return (
        np.array([one["gmacs"]["mean"] for one in points]),
        np.array([100 * one["top1"]["mean"] for one in points]),
        np.array([np.nan if half is None else 100 * half for half in halves]),
    )
