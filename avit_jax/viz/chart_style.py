"""What all charts of a report share: colour themes, axes of layers and of classes, the PNG.

Each chart is drawn for paper (white) and for both colour schemes of the page (transparent).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from avit_jax.viz.matplotlib_figure import new_figure, png_bytes, shortened

MOST_CLASSES = 24  # in a chart of classes; the ends of their order where there are more
LEAST_ROWS = 8  # so that a single class does not fill the chart
HEIGHT = 2.85  # inches
_LONGEST_NAME = 22


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours around the data, as Matplotlib names them, and the resolution.

    Attributes:
        ink: of text, axes and edges.
        quiet: of grid lines and bands.
        paper: of the background.
        dots: per inch.
    """

    ink: str
    quiet: str
    paper: str
    dots: int


PAPER = Theme("#1c2028", "#d5d9e0", "#ffffff", 300)
LIGHT = Theme("#343a46", "#d5d9e0", "none", 170)
DARK = Theme("#d3d8e2", "#3a414d", "none", 170)

# Draws the summary of a report (`image_statistics.summarise`) as the content of a PNG file.
Chart = Callable[[dict[str, Any], Theme], bytes]


def canvas(theme: Theme, vertical: str, horizontal: str, *, height: float = HEIGHT):
    """A figure with one axis in the style of all charts.

    Args:
        theme: its colours.
        vertical: label of the vertical axis.
        horizontal: label of the horizontal axis.
        height: in inches.
    """
    figure = new_figure(4.2, height, layout="constrained", facecolor=theme.paper)
    axis = figure.add_subplot(facecolor="none")
    axis.set_ylabel(vertical, fontsize=8)
    axis.set_xlabel(horizontal, fontsize=8)
    axis.set_axisbelow(True)
    axis.grid(True, axis="y", color=theme.quiet, linewidth=0.5)
    axis.tick_params(labelsize=7, length=0)
    for name, spine in axis.spines.items():
        spine.set_visible(name == "bottom")
    return figure, axis


def layer_axis(axis, depth: int, *, first: int = 1) -> None:
    """Number the layers along a horizontal axis, from `first` on."""
    step = 1 if depth <= 16 else -(-depth // 12)
    axis.set_xticks([*range(first, 1), *range(1, depth + 1, step)])
    axis.set_xlim(first - 0.6, depth + 0.6)


def class_axis(axis, classes: Sequence[dict[str, Any]], theme: Theme) -> np.ndarray:
    """Name classes and their images along a vertical axis; return their places."""
    places = np.arange(len(classes))
    names = [
        f"{shortened(one['name'], longest=_LONGEST_NAME)} ({one['images']})" for one in classes
    ]
    axis.set_yticks(places, names, fontsize=7, parse_math=False)
    axis.set_ylim(min(len(classes) - LEAST_ROWS, 0) - 0.6, len(classes) - 0.4)
    axis.grid(False, axis="y")
    axis.grid(True, axis="x", color=theme.quiet, linewidth=0.5)
    return places


def class_height(classes: Sequence[dict[str, Any]]) -> float:
    """Height of a chart of classes, in inches."""
    return max(HEIGHT, 0.85 + 0.2 * len(classes))


def ends(
    classes: Sequence[dict[str, Any]], low: str, high: str
) -> tuple[list[dict[str, Any]], str]:
    """The classes that fit a chart, and a note; `classes` are ordered from `low` to `high`."""
    if len(classes) <= MOST_CLASSES:
        return list(classes), "images per class in brackets"
    half = MOST_CLASSES // 2
    chosen = [*classes[:half], *classes[-half:]]
    return chosen, f"the {half} {high} and {half} {low} of {len(classes)} classes"


def png(figure, theme: Theme) -> bytes:
    """The figure as a PNG, its words in the ink of the theme."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_color(theme.ink)
    for axis in figure.axes:
        axis.spines["bottom"].set_color(theme.ink)
        axis.tick_params(colors=theme.ink)
    return png_bytes(figure, dots_per_inch=theme.dots)
