"""What ran for one image, block by block, as a figure fit for a paper.

One column per block: the photograph with its skipped patches dimmed, below it which heads and which
halves ran. All share the horizontal axis, so that a block is read from top to bottom.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from avit_jax.viz.depth_figure import OFF, ON, part_names, used_parts
from avit_jax.viz.look import Looked
from avit_jax.viz.patches import dimmed, on_grid, side_near
from avit_jax.viz.sheet import DOTS_PER_INCH, Sheet

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
    sheet = Sheet(width, height)
    sheet.words(title, _NAMES, 0.19, points=8)
    _photographs(sheet, looked, grid, cell)
    top = _TITLE + cell + _BETWEEN
    for (name, used), tall in zip(parts, heights, strict=True):
        _squares(sheet, top, name, used, cell)
        top += tall + _BETWEEN
    sheet.write(path)


def _photographs(sheet: Sheet, looked: Looked, grid: int, cell: float) -> None:
    """One per block, with its number and the share of its patches."""
    side = side_near(round((cell - _APART) * DOTS_PER_INCH), grid)  # no more than is drawn
    small = Image.fromarray(looked.photograph).resize((side, side), Image.Resampling.LANCZOS)
    sheet.words("layer\nran", _NAMES - 0.05, _TITLE - 0.05, anchor="rs")
    sheet.words("patches", _NAMES - 0.05, _TITLE + cell / 2, anchor="rm")
    live = on_grid(looked.live, grid)
    pictures = dimmed(np.asarray(small), live)
    for block, (picture, computed) in enumerate(zip(pictures, live, strict=True)):
        left = _NAMES + block * cell
        sheet.paste(picture, left + _APART / 2, _TITLE + _APART / 2, cell - _APART)
        lines = f"{block + 1}\n{computed.mean():.0%}"
        sheet.words(lines, left + cell / 2, _TITLE - 0.05, anchor="ms")


def _squares(sheet: Sheet, top: float, name: str, used: np.ndarray, cell: float) -> None:
    """Parts bool `[L, K]`: a column per block, a row per part, filled where it ran."""
    layers, count = used.shape
    for part, words in enumerate(part_names(name, count, long=True)):
        high = top + part * _ROW
        sheet.words(words, _NAMES - 0.05, high + _ROW / 2, anchor="rm")
        for block in range(layers):
            colour = ON if used[block, part] else OFF
            left = _NAMES + block * cell + _APART / 2
            sheet.box(left, high + 0.1 * _ROW, cell - _APART, 0.8 * _ROW, colour)
