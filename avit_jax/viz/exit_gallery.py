"""Photographs by the exit that they left at, easy ones first: what a cascade finds easy and hard.

Of each exit only the ends are kept while images come in, the surest and the least sure answers, so
memory does not grow with their number.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from avit_jax.viz import palette
from avit_jax.viz.exit_maps import map_over
from avit_jax.viz.look import Looked
from avit_jax.viz.matplotlib_figure import hide_frame, new_figure, png_bytes, shortened
from avit_jax.viz.sheet import DOTS_PER_INCH

ENDS = 5  # of each exit: the surest images, and as many of the least sure
SIDE = 200  # pixels of a photograph that is kept
_PANEL, _GAP, _MARGIN = SIDE / DOTS_PER_INCH, 0.05, 0.08  # inches
_BEFORE, _HEADING, _CAPTION, _NAMES, _LEGEND = 0.1, 0.13, 0.23, 0.13, 0.42  # inches
_LONGEST = 12  # letters of a caption
_WRONG, _PAPER = palette.OKABE_ITO["vermilion"], 255


@dataclasses.dataclass(frozen=True)
class Placed:
    """An image of a gallery.

    Attributes:
        order: its place among all images of the report.
        looked: the image, its photograph `SIDE` pixels wide.
    """

    order: int
    looked: Looked


class Gallery:
    """The images of each exit, the surest first, without the middle of long rows."""

    def __init__(self) -> None:
        self._rows: list[list[Placed]] = []
        self._counts: list[int] = []

    def add(self, looked: Looked, order: int) -> None:
        """Put an image into the row of its exit; images of models with one exit are left out."""
        if looked.exit is None:
            return
        for _ in range(len(self._rows), len(looked.exit_maps)):
            self._rows.append([])
            self._counts.append(0)
        small = Image.fromarray(looked.photograph).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        placed = Placed(order, dataclasses.replace(looked, photograph=np.asarray(small)))
        row = self._rows[looked.exit]
        bisect.insort(row, placed, key=lambda one: -one.looked.confidence)
        self._counts[looked.exit] += 1
        if len(row) > 2 * ENDS:
            del row[ENDS]

    @property
    def rows(self) -> list[list[Placed]]:
        """The images kept of each exit, the surest first; nothing for models with one exit."""
        return self._rows

    @property
    def counts(self) -> list[int]:
        """How many images left at each exit."""
        return self._counts

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of each exit."""
        return next(row[0].looked.exit_layers for row in self._rows if row)

    def is_cut(self, index: int) -> bool:
        """Whether the middle of an exit's row is left out."""
        return self._counts[index] > 2 * ENDS

    @property
    def halts(self) -> bool:
        """Whether a patch of any image kept came to rest inside an exit."""
        return any(halted(placed.looked) for row in self._rows for placed in row)

    def about(self, index: int) -> str:
        """How many images the row of an exit stands for, in words."""
        count, every = self._counts[index], sum(self._counts)
        text = f"{count:,} of {every:,} image{'' if every == 1 else 's'} ({count / every:.0%})"
        return (
            f"{text}, the {ENDS} surest and the {ENDS} least sure" if self.is_cut(index) else text
        )


def halted(looked: Looked) -> bool:
    """Whether any patch was left out of a layer of an exit that ran."""
    ran = looked.exit + 1
    pairs = zip(looked.exit_maps[:ran], looked.exit_layers[:ran], strict=True)
    return any((depths < layers).any() for depths, layers in pairs)


def draw(gallery: Gallery, class_names: Sequence[str]) -> bytes:
    """The content of a PNG: a row of photographs for each exit, the surest answer first.

    Where patches came to rest inside exits, the depth maps of the exits that ran for an image are
    below it, the first exit's at the top.
    """
    halts, columns = gallery.halts, 2 * ENDS
    heights = [
        _BEFORE + _HEADING + (_CAPTION + (1 + halts * (index + 1)) * (_PANEL + _GAP)) * bool(row)
        for index, row in enumerate(gallery.rows)
    ]
    left = _MARGIN + _NAMES * halts
    breadth = columns * (_PANEL + _GAP)
    width, height = left + breadth + _MARGIN, sum(heights) + _MARGIN + _LEGEND * halts
    figure = new_figure(width, height, dpi=DOTS_PER_INCH)
    top = height
    for index, (row, tall) in enumerate(zip(gallery.rows, heights, strict=True)):
        heading = f"exit {index + 1}: {gallery.about(index)}"
        place = (left / width, (top - _BEFORE) / height)
        figure.text(*place, heading, fontsize=8, weight="bold", va="top")
        if row:
            inches = tall - _BEFORE - _HEADING - _CAPTION - _GAP
            box = (left / width, (top - tall + _GAP) / height, breadth / width, inches / height)
            strip = strip_of(row, columns, maps=halts * (index + 1), parted=gallery.is_cut(index))
            _draw_row(figure.add_axes(box), strip, row, class_names)
        top -= tall
    if halts:
        box = (0.25, (_MARGIN + 0.22) / height, 0.5, 0.1 / height)
        _legend(figure.add_axes(box), max(gallery.layers))
    return png_bytes(figure, dots_per_inch=DOTS_PER_INCH)


class Strip(NamedTuple):
    """A row of a gallery as one picture, so that little is drawn.

    Attributes:
        pixels: uint8 `[rows, columns, 3]`.
        columns: where each image begins.
        maps: where the map of each exit begins, below the photographs.
    """

    pixels: np.ndarray
    columns: list[int]
    maps: list[int]


def strip_of(row: list[Placed], columns: int, *, maps: int, parted: bool) -> Strip:
    """Compose a row.

    Args:
        row: the images.
        columns: images that there is room for.
        maps: exits whose maps are shown below each.
        parted: whether a wider gap is between the surest and the least sure.
    """
    gap = round(_GAP / _PANEL * SIDE)
    step = SIDE + gap
    places = [column * step + gap * (parted and column >= ENDS) for column in range(len(row))]
    lines = [line * step for line in range(1 + maps)]
    canvas = np.full((lines[-1] + SIDE, columns * step, 3), _PAPER, np.uint8)
    for place, placed in zip(places, row, strict=True):
        pictures = [map_over(placed.looked, index, SIDE) for index in range(maps)]
        for line, picture in zip(lines, [placed.looked.photograph, *pictures], strict=True):
            canvas[line : line + SIDE, place : place + SIDE] = picture
    return Strip(canvas, places, lines[1:])


def _draw_row(axis, strip: Strip, row: list[Placed], class_names: Sequence[str]) -> None:
    axis.imshow(strip.pixels, interpolation="antialiased")
    axis.set_axis_off()
    for place, placed in zip(strip.columns, row, strict=True):
        lines, is_wrong = _two_lines(placed.looked, class_names)
        colour = {"color": _WRONG} if is_wrong else {}
        axis.text(place, -0.03 * SIDE, lines, fontsize=5.5, va="bottom", parse_math=False, **colour)
    for index, line in enumerate(strip.maps):
        centre = (-0.04 * SIDE, line + SIDE / 2)
        axis.text(
            *centre, f"in exit {index + 1}", fontsize=5.5, rotation=90, ha="right", va="center"
        )


def _two_lines(looked: Looked, class_names: Sequence[str]) -> tuple[str, bool]:
    """As `caption`, with how sure the answer is, in two lines that both names have room in."""
    _, is_wrong = caption(looked, class_names)
    if not is_wrong:
        name = shortened(class_names[looked.answer], longest=_LONGEST)
        return f"{name}\n{looked.confidence:.1%}", False
    answer = shortened(class_names[looked.answer], longest=_LONGEST - 2)
    truth = shortened(class_names[looked.label], longest=_LONGEST)
    return f"{answer} {looked.confidence:.0%}\nis {truth}", True


def caption(looked: Looked, class_names: Sequence[str]) -> tuple[str, bool]:
    """The answer of an image, with the class that it is where that differs, and whether it does."""
    answer = class_names[looked.answer]
    if looked.label in (None, looked.answer):
        return answer, False
    return f"{answer}, is {class_names[looked.label]}", True


def _legend(axis, layers: int) -> None:
    counts = np.arange(1, layers + 1)
    axis.imshow(palette.paint(counts, layers)[None], aspect="auto", interpolation="nearest")
    axis.set_xticks(np.arange(layers), [str(count) for count in counts], fontsize=6)
    axis.set_yticks([])
    axis.tick_params(length=0, pad=1)
    axis.set_xlabel("layers computed per patch inside an exit", fontsize=6, labelpad=1)
    hide_frame(axis)
