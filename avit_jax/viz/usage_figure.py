"""What ran for one image, block by block, as a figure fit for a paper.

One column per block: the photograph with its skipped patches dimmed, below it which heads and which
halves ran. All share the horizontal axis, so that a block is read from top to bottom.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avit_jax.viz.depth_figure import DOTS_PER_INCH, OFF, ON, part_names, used_parts
from avit_jax.viz.look import Looked
from avit_jax.viz.matplotlib_figure import hide_frame, new_figure, shortened, write_png
from avit_jax.viz.patches import dimmed, on_grid

WIDTH = 7.2  # inches, the two columns of a paper
LARGEST, SMALLEST = 0.95, 0.42  # inches of a photograph; many blocks make the figure wider
_ROW, _BETWEEN, _TITLE, _NAMES, _MARGIN, _APART = 0.13, 0.09, 0.46, 0.62, 0.1, 0.05  # inches


def write(looked: Looked, path: Path, *, title: str, grid: int) -> None:
    """Write the figure as a PNG.

    Args:
        looked: the image.
        path: of the PNG.
        title: in one line, above the blocks.
        grid: patches along each side.
    """
    layers, parts = len(looked.live), used_parts(looked)
    cell = min(LARGEST, max(SMALLEST, (WIDTH - _NAMES - _MARGIN) / layers))
    width = _NAMES + cell * layers + _MARGIN
    heights = [_ROW * used.shape[1] for _, used in parts]
    height = _TITLE + cell + sum(heights) + _BETWEEN * len(parts) + _MARGIN
    figure = new_figure(width, height, dpi=DOTS_PER_INCH)

    def axes(top: float, tall: float):
        """Over all blocks, `top` inches under the upper edge."""
        low = height - top - tall
        box = (_NAMES / width, low / height, cell * layers / width, tall / height)
        axis = figure.add_axes(box)
        axis.set_xlim(0, layers)
        axis.tick_params(length=0, pad=2, labelsize=6)
        hide_frame(axis)
        return axis

    caption = shortened(title, longest=60)
    figure.text(_NAMES / width, 1 - 0.08 / height, caption, fontsize=8, va="top", parse_math=False)
    _photographs(axes(_TITLE, cell), looked, grid, apart=_APART / cell / 2)
    top = _TITLE + cell + _BETWEEN
    for (name, used), tall in zip(parts, heights, strict=True):
        _squares(axes(top, tall), name, used, apart=_APART / cell / 2)
        top += tall + _BETWEEN
    write_png(figure, path, dots_per_inch=DOTS_PER_INCH)


def _photographs(axis, looked: Looked, grid: int, *, apart: float) -> None:
    """One per block, with its number and the share of its patches."""
    pixels = looked.photograph.astype(np.float64)
    live = on_grid(looked.live, grid)
    for block, computed in enumerate(live):
        box = (block + apart, block + 1 - apart, apart, 1 - apart)
        axis.imshow(
            dimmed(pixels, computed), extent=box, aspect="auto", interpolation="antialiased"
        )
    numbers = [f"{block}\n{part.mean():.0%}" for block, part in enumerate(live, start=1)]
    axis.set_xlim(0, len(live))
    axis.set_ylim(0, 1)
    axis.set_xticks(np.arange(len(live)) + 0.5, numbers)
    axis.xaxis.tick_top()
    axis.text(-0.06, 1.02, "layer\nran", fontsize=6, ha="right", va="bottom", linespacing=1.2)
    axis.set_yticks([0.5], ["patches"])


def _squares(axis, name: str, used: np.ndarray, *, apart: float) -> None:
    """Parts bool `[L, K]`: a column per block, a row per part, filled where it ran."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    layers, count = used.shape
    places = [(block, part) for block in range(layers) for part in range(count)]
    boxes = [Rectangle((b + apart, p + 0.1), 1 - 2 * apart, 0.8) for b, p in places]
    colours = [np.divide(ON if used[place] else OFF, 255.0) for place in places]
    axis.add_collection(PatchCollection(boxes, facecolors=colours, linewidths=0))
    axis.set_ylim(count, 0)  # the first at the top
    axis.set_xticks([])
    axis.set_yticks(np.arange(count) + 0.5, part_names(name, count, long=True))
