"""One image and its depth map, side by side with their legend, as a figure fit for a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avit_jax.viz import exit_maps, palette
from avit_jax.viz.look import Looked
from avit_jax.viz.matplotlib_figure import hide_frame, new_figure, shortened, write_png
from avit_jax.viz.patches import depth_over, on_grid

DOTS_PER_INCH = 300
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
    pictures_end = (1 + len(maps)) * (_PANEL + _GAP) + _GAP
    width = pictures_end + _BAR + sum(share + _BETWEEN for share in shares)
    height = _PANEL + _TITLE + _GAP
    figure = new_figure(width, height, dpi=DOTS_PER_INCH)

    def axes(left: float, breadth: float):
        return figure.add_axes((left / width, _GAP / height, breadth / width, _PANEL / height))

    pictures = [looked.photograph, *(picture for picture, _ in maps)]
    captions = [title, *(caption for _, caption in maps)]
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        axis = axes(_GAP + index * (_PANEL + _GAP), _PANEL)
        axis.imshow(picture, interpolation="nearest")
        axis.set_axis_off()
        axis.set_title(
            shortened(caption, longest=40), fontsize=8, loc="left", pad=4, parse_math=False
        )
    left = pictures_end - 0.02
    legend(axes(left, 0.13), layers, first=first)
    left += _BAR
    for (name, used), share in zip(panels, shares, strict=True):
        matrix(axes(left, share), name, used)
        left += share + _BETWEEN
    write_png(figure, path, dots_per_inch=DOTS_PER_INCH)


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


def legend(axis, depth: int, *, first: int = 1) -> None:
    """Draw one named box per number of layers, `first` to `depth`, into a tall, narrow axis."""
    counts = np.arange(first, depth + 1)
    colours = palette.paint(counts, depth)[:, None]
    axis.imshow(colours, origin="lower", aspect="auto", interpolation="nearest")
    axis.set_yticks(np.arange(len(counts)), [str(count) for count in counts], fontsize=6)
    axis.set_yticks(np.arange(len(counts) + 1) - 0.5, minor=True)
    axis.grid(which="minor", axis="y", color="white", linewidth=0.6)
    axis.tick_params(which="both", length=0, pad=2)
    axis.yaxis.tick_right()
    axis.set_xticks([])
    axis.set_title("layers", fontsize=7, pad=4, loc="left")
    hide_frame(axis)


def matrix(axis, name: str, used: np.ndarray) -> None:
    """Draw which parts `[L, K]` ran in which layer, layer 1 at the bottom like the legend's."""
    shown = np.where(used[..., None], np.uint8(ON), np.uint8(OFF))
    axis.imshow(shown, origin="lower", aspect="auto", interpolation="nearest")
    axis.set_xticks(np.arange(used.shape[1]), part_names(name, used.shape[1]), fontsize=6)
    axis.xaxis.tick_top()
    axis.set_yticks([])
    axis.set_xticks(np.arange(used.shape[1] + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(used) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=0.8)
    axis.tick_params(which="both", length=0, pad=1)
    axis.set_title(f"{name} run", fontsize=7, pad=3, loc="left")
    hide_frame(axis)


def used_parts(looked: Looked) -> list[tuple[str, np.ndarray]]:
    """The parts beside tokens that the method may skip: name and bool `[L, K]`."""
    return [(name, used) for name, used in looked.ran.items() if name != "tokens"]


def part_names(name: str, count: int, *, long: bool = False) -> list[str]:
    """Names of the parts in a matrix; the short ones fit above a column."""
    if name == "halves":
        return ["attention", "MLP"] if long else ["A", "M"]
    return [f"head {one}" if long else str(one) for one in range(1, count + 1)]
