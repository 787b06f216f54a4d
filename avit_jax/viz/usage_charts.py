"""Charts over all images of a report: heads and halves that ran, and cost against difficulty."""

from __future__ import annotations

from typing import Any

import numpy as np

from avit_jax.viz import chart_style, difficulty
from avit_jax.viz.chart_style import Theme
from avit_jax.viz.palette import OKABE_ITO

MARKS = {  # colour, and a shape besides
    "tokens": (OKABE_ITO["blue"], "o"),
    "heads": (OKABE_ITO["orange"], "s"),
    "halves": (OKABE_ITO["green"], "D"),
    "attention": (OKABE_ITO["green"], "^"),
    "mlp": (OKABE_ITO["purple"], "v"),
    "right": (OKABE_ITO["blue"], "o"),
    "wrong": (OKABE_ITO["vermilion"], "X"),
    "unknown": ("#7f8794", "o"),
}
NAMES = {"halves": "halves of blocks", "mlp": "MLP", "unknown": "class unknown"}


def name_of(part: str) -> str:
    """What a part is called in a legend."""
    return NAMES.get(part, part)


def kept_per_layer(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of the heads, attention halves and MLP halves that ran in each layer."""
    lines = summary["kept_per_layer"]
    depth = len(summary["depth_histogram"])
    figure, axis = chart_style.canvas(theme, "ran (%)", "layer")
    for part, shares in lines.items():
        colour, shape = MARKS[part]
        axis.plot(
            np.arange(1, depth + 1),
            100 * np.asarray(shares),
            color=colour,
            marker=shape,
            markersize=4.5,
            linewidth=1.1,
            label=name_of(part),
            clip_on=False,
        )
    axis.set_ylim(0, 104)
    chart_style.layer_axis(axis, depth)
    _legend(figure)
    return chart_style.png(figure, theme)


def class_kept(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of tokens, heads and halves that ran in each class, dearest class at the top."""
    ordered = sorted(summary["classes"], key=lambda one: one["gmacs"])
    classes, note = chart_style.ends(ordered, "cheapest", "dearest")
    height = chart_style.class_height(classes) + 0.3
    figure, axis = chart_style.canvas(theme, "", "share that ran (%)", height=height)
    places = chart_style.class_axis(axis, classes, theme)
    costs = [100 * one["gmacs"] / summary["gmacs_dense"] for one in classes]
    axis.barh(places, costs, 0.72, color=theme.quiet, label="GMACs")
    for part in classes[0]["kept"]:
        colour, shape = MARKS[part]
        shares = [100 * one["kept"][part] for one in classes]
        style = {"s": 22, "color": colour, "marker": shape, "clip_on": False, "zorder": 3}
        axis.scatter(shares, places, label=name_of(part), **style)
    axis.set_xlim(0, 101)
    axis.set_title(note, fontsize=8, loc="left")
    _legend(figure)
    return chart_style.png(figure, theme)


def cost_and_difficulty(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of the dense cost of each image by the model's confidence, and means of groups."""
    figure, axis = chart_style.canvas(theme, "GMACs, of dense (%)", "confidence of the answer (%)")
    rows = summary["rows"]
    for answer, wanted in (("right", True), ("wrong", False), ("unknown", None)):
        chosen = [row for row in rows if row["right"] is wanted]
        if not chosen:
            continue
        colour, shape = MARKS[answer]
        axis.scatter(
            [100 * row["confidence"] for row in chosen],
            [100 * row["gmacs"] / summary["gmacs_dense"] for row in chosen],
            s=20,
            color=colour,
            marker=shape,
            alpha=0.85,
            linewidth=0,
            label=f"{name_of(answer)} ({len(chosen)})",
            clip_on=False,
        )
    groups = summary["difficulty"]["groups"]
    axis.plot(
        [100 * group["confidence"] for group in groups],
        [100 * group["share"] for group in groups],
        color=theme.ink,
        marker="_",
        markersize=9,
        linewidth=1.1,
        label=f"mean of {_counts(groups)} images each",
    )
    axis.margins(0.06)
    axis.set_title(difficulty.in_words(summary["difficulty"]), fontsize=8, loc="left")
    _legend(figure)
    return chart_style.png(figure, theme)


def _counts(groups: list[dict[str, Any]]) -> str:
    sizes = sorted({group["images"] for group in groups})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} or {sizes[-1]}"


def _legend(figure) -> None:
    figure.legend(loc="outside lower left", ncols=4, fontsize=7, frameon=False, handlelength=1.4)
