"""Depth charts over all images of a report: histogram, live tokens per layer, depth per class."""

from __future__ import annotations

from typing import Any

import numpy as np

from avit_jax.viz import chart_style, palette
from avit_jax.viz.chart_style import Theme

_ROUNDING = 1e-6  # shares that differ by less are equal


def first_count(summary: dict[str, Any]) -> int:
    """Where axes of depths begin: at 0 layers if some token was skipped by all of them, else 1."""
    return 0 if sum(summary["depth_histogram"]) < 1.0 - _ROUNDING else 1


def depth_histogram(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of the tokens by the layers they went through."""
    from matplotlib.ticker import MaxNLocator

    shares = np.array(summary["depth_histogram"])
    depth, first = len(shares), first_count(summary)
    shares = np.concatenate([[1.0 - shares.sum()], shares])[first:]
    layers = np.arange(first, depth + 1)
    figure, axis = chart_style.canvas(
        theme, "share of tokens (%)", "layers that a token went through"
    )
    colours = [palette.hexadecimal(colour) for colour in palette.paint(layers, depth)]
    bars = axis.bar(layers, 100 * shares, color=colours, edgecolor=theme.ink, linewidth=0.4)
    for bar, share in zip(bars, shares, strict=True):
        if share >= 0.005 and len(shares) <= 16:
            label = f"{100 * share:.0f}"
            place = (bar.get_x() + bar.get_width() / 2, bar.get_height())
            axis.annotate(label, place, (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    mean = summary["mean_depth"]
    axis.axvline(mean, color=theme.ink, linewidth=0.9, linestyle=(0, (4, 3)))
    axis.set_title(f"mean {mean:.2f} layers (dashed)", fontsize=8, loc="left")
    chart_style.layer_axis(axis, depth, first=first)
    return chart_style.png(figure, theme)


def live_tokens(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of the tokens computed in each layer, over images."""
    live = {name: 100 * np.asarray(values) for name, values in summary["live"].items()}
    layers = np.arange(1, len(live["mean"]) + 1)
    figure, axis = chart_style.canvas(theme, "tokens computed (%)", "layer")
    colours = palette.colours(len(layers))
    axis.fill_between(
        layers, live["least"], live["most"], step="mid", color=theme.quiet, linewidth=0, alpha=0.75
    )
    axis.step(layers, live["mean"], where="mid", color=theme.ink, linewidth=1.1)
    axis.scatter(
        layers,
        live["mean"],
        s=26,
        c=colours / 255.0,
        edgecolors=theme.ink,
        zorder=3,
        clip_on=False,
    )
    axis.set_ylim(0, 104)
    axis.set_title("mean over images; band: least and most", fontsize=8, loc="left")
    chart_style.layer_axis(axis, len(layers))
    return chart_style.png(figure, theme)


def class_depth(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: mean depth of each class, deepest at the top; needs at least one class."""
    classes, note = chart_style.ends(summary["classes"], "shallowest", "deepest")
    depth = len(summary["depth_histogram"])
    height = chart_style.class_height(classes)
    figure, axis = chart_style.canvas(theme, "", "mean layers per token", height=height)
    means = np.array([one["mean_depth"] for one in classes])
    colours = palette.paint(np.rint(means).astype(int), depth) / 255.0
    places = chart_style.class_axis(axis, classes, theme)
    axis.barh(places, means, 0.72, color=colours, edgecolor=theme.ink, linewidth=0.4)
    for place, mean in zip(places, means, strict=True):
        axis.annotate(
            f"{mean:.1f}",
            (mean, place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axis.set_xlim(0, depth * 1.02)
    axis.set_title(note, fontsize=8, loc="left")
    return chart_style.png(figure, theme)
