"""One image and its depth map, side by side with their legend, as a figure fit for a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avit_jax.viz import exit_maps, palette
from avit_jax.viz.look import Looked
from avit_jax.viz.patches import depth_over, on_grid
from avit_jax.viz.sheet import Sheet

_PANEL, _GAP, _TITLE, _BAR, _BETWEEN = 2.1, 0.12, 0.3, 0.52, 0.24  # inches
ON, OFF = (52, 58, 70), (226, 229, 235)  # colours of parts that ran and of those that did not


def write(looked: Looked, path: Path, *, title: str, grid: int) -> None:
    """Write photograph, map and legend side by side as a PNG; heads and halves where they differ.

    Of a model with several exits there is a map for each, on its own grid.

    Args:
        looked: the image.
        path: of the PNG.
        title: in one line, above the photograph.
        grid: patches along each side.
    """
    layers, first, maps = _maps(looked, grid)
    panels = used_parts(looked)
    shares = [0.11 * (used.shape[1] + 3) for _, used in panels]
    left = (1 + len(maps)) * (_PANEL + _GAP) + _GAP
    width = left + _BAR + sum(share + _BETWEEN for share in shares)
    sheet = Sheet(width, _PANEL + _TITLE + _GAP)
    pictures = [(looked.photograph, title), *maps]
    for index, (picture, caption) in enumerate(pictures):
        place = _GAP + index * (_PANEL + _GAP)
        sheet.paste(picture, place, _TITLE, _PANEL)
        sheet.words(caption, place, _TITLE - 0.06, points=8, longest=40)
    legend(sheet, left - 0.02, layers, first=first)
    left += _BAR
    for (name, used), share in zip(panels, shares, strict=True):
        matrix(sheet, left, share, name, used)
        left += share + _BETWEEN
    sheet.write(path)


def _maps(looked: Looked, grid: int) -> tuple[int, int, list[tuple[np.ndarray, str]]]:
    """The most layers of a map, the least that the legend has to name, and maps with captions."""
    if looked.exit_maps is None:
        depths, layers = on_grid(looked.depth, grid), len(looked.live)
        picture = depth_over(looked.photograph, depths, layers)
        caption = f"mean depth {looked.depth.mean():.1f} of {layers} layers"
        return layers, min(1, depths.min()), [(picture, caption)]
    least = min(depths.min() for depths in looked.exit_maps[: looked.exit + 1])
    maps = [
        (
            exit_maps.map_over(looked, index, len(looked.photograph)),
            exit_maps.caption(looked, index),
        )
        for index in range(len(looked.exit_maps))
    ]
    return max(looked.exit_layers), min(1, least), maps


def legend(sheet: Sheet, left: float, depth: int, *, first: int) -> None:
    """Draw one named box per number of layers, `first` to `depth`, the fewest at the bottom."""
    counts = np.arange(depth, first - 1, -1)
    tall = _PANEL / len(counts)
    sheet.words("layers", left, _TITLE - 0.06, points=7)
    for row, (count, colour) in enumerate(zip(counts, palette.paint(counts, depth), strict=True)):
        top = _TITLE + row * tall
        sheet.box(left, top, 0.13, tall, tuple(colour.tolist()))
        sheet.words(str(count), left + 0.16, top + tall / 2, anchor="lm")


def matrix(sheet: Sheet, left: float, width: float, name: str, used: np.ndarray) -> None:
    """Draw which parts `[L, K]` ran in which layer, layer 1 at the bottom like the legend's."""
    layers, count = used.shape
    wide, tall = width / count, _PANEL / layers
    sheet.words(f"{name} run", left, _TITLE - 0.15, points=7)
    for part, letters in enumerate(part_names(name, count)):
        sheet.words(letters, left + (part + 0.5) * wide, _TITLE - 0.03, anchor="ms")
        for layer in range(layers):
            top = _TITLE + (layers - 1 - layer) * tall
            colour = ON if used[layer, part] else OFF
            sheet.box(left + part * wide, top, wide, tall, colour)


def used_parts(looked: Looked) -> list[tuple[str, np.ndarray]]:
    """The parts beside tokens that the method may skip: name and bool `[L, K]`."""
    return [(name, used) for name, used in looked.ran.items() if name != "tokens"]


def part_names(name: str, count: int, *, long: bool = False) -> list[str]:
    """Names of the parts in a matrix; the short ones fit above a column."""
    if name == "halves":
        return ["attention", "MLP"] if long else ["A", "M"]
    return [f"head {one}" if long else str(one) for one in range(1, count + 1)]
