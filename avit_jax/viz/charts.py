"""Charts over all images of a report: depth histogram, live tokens per layer, depth per class.

Each is drawn for paper (white) and for both colour schemes of the page (transparent).
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from avit_jax.viz import palette

MOST_CLASSES = (
    24  # bars in the chart of classes; the deepest and the shallowest where there are more
)
LEAST_ROWS = 8  # so that a single bar does not fill the chart
_LONGEST_NAME = 22
HEIGHT = 2.85  # inches


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours around the data, and the resolution in dots per inch."""

    ink: str
    quiet: str
    paper: str
    dots: int


PAPER = Theme("#1c2028", "#d5d9e0", "#ffffff", 300)
LIGHT = Theme("#343a46", "#d5d9e0", "none", 170)
DARK = Theme("#d3d8e2", "#3a414d", "none", 170)

Chart = Callable[[dict[str, Any], Theme], bytes]


def depth_histogram(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of the tokens by the layers they went through."""
    from matplotlib.ticker import MaxNLocator

    shares = np.array(summary["depth_histogram"])
    layers = np.arange(1, len(shares) + 1)
    figure, axis = _canvas(theme, "share of tokens (%)", "layers that a token went through")
    colours = [palette.hexadecimal(colour) for colour in palette.colours(len(shares))]
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
    _layer_axis(axis, len(shares))
    return _png(figure, theme)


def live_tokens(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: share of the tokens computed in each layer, over images."""
    live = {name: 100 * np.asarray(values) for name, values in summary["live"].items()}
    layers = np.arange(1, len(live["mean"]) + 1)
    figure, axis = _canvas(theme, "tokens computed (%)", "layer")
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
    _layer_axis(axis, len(layers))
    return _png(figure, theme)


def class_depth(summary: dict[str, Any], theme: Theme) -> bytes:
    """PNG: mean depth of each class, deepest at the top; needs at least one class."""
    classes = summary["classes"]
    depth = len(summary["depth_histogram"])
    note = "images per class in brackets"
    if len(classes) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        note = f"the {half} deepest and {half} shallowest of {len(classes)} classes"
        classes = classes[:half] + classes[-half:]
    height = max(HEIGHT, 0.85 + 0.2 * len(classes))
    figure, axis = _canvas(theme, "", "mean layers per token", height=height)
    means = np.array([one["mean_depth"] for one in classes])
    colours = palette.paint(np.rint(means).astype(int), depth) / 255.0
    places = np.arange(len(classes))
    axis.barh(places, means, 0.72, color=colours, edgecolor=theme.ink, linewidth=0.4)
    names = [f"{_printable(one['name'])} ({one['images']})" for one in classes]
    axis.set_yticks(places, names, fontsize=7, parse_math=False)
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
    axis.set_ylim(min(len(classes) - LEAST_ROWS, 0) - 0.6, len(classes) - 0.4)
    axis.grid(False, axis="y")
    axis.grid(True, axis="x", color=theme.quiet, linewidth=0.5)
    axis.set_title(note, fontsize=8, loc="left")
    return _png(figure, theme)


def _canvas(theme: Theme, vertical: str, horizontal: str, *, height: float = HEIGHT):
    """A figure with one axis in the style of all charts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, height), layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)
    axis = figure.add_subplot(facecolor="none")
    axis.set_ylabel(vertical, fontsize=8)
    axis.set_xlabel(horizontal, fontsize=8)
    axis.set_axisbelow(True)
    axis.grid(True, axis="y", color=theme.quiet, linewidth=0.5)
    axis.tick_params(labelsize=7, length=0)
    for name, spine in axis.spines.items():
        spine.set_visible(name == "bottom")
    return figure, axis


def _layer_axis(axis, depth: int) -> None:
    step = 1 if depth <= 16 else -(-depth // 12)
    axis.set_xticks(np.arange(1, depth + 1, step))
    axis.set_xlim(0.4, depth + 0.6)


def _png(figure, theme: Theme) -> bytes:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_color(theme.ink)
    for axis in figure.axes:
        axis.spines["bottom"].set_color(theme.ink)
        axis.tick_params(colors=theme.ink)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=theme.dots, metadata={"Software": "avit_jax"})
    return buffer.getvalue()


def _printable(name: str) -> str:
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
