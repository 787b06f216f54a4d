"""A white sheet measured in inches, for figures of pictures with a few words beside them.

Hundreds of these are written at a time. Pillow pastes and letters one in the time in which
Matplotlib makes a single axis, in the same typeface.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avit_jax.runtime.files import write_bytes_atomic
from avit_jax.viz.matplotlib_figure import shortened

DOTS_PER_INCH = 300
INK, PAPER = (0, 0, 0), (255, 255, 255)
Colour = tuple[int, int, int]


class Sheet:
    """A picture of `width` x `height` inches; places are inches from its upper left corner."""

    def __init__(self, width: float, height: float):
        self._image = Image.new("RGB", (_dots(width), _dots(height)), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def paste(self, pixels: np.ndarray, left: float, top: float, size: float) -> None:
        """A square picture uint8 `[S, S, 3]`, `size` inches wide; every pixel stays a square."""
        side = _dots(size)
        shrinks = side < len(pixels)
        how = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
        scaled = Image.fromarray(pixels).resize((side, side), how)
        self._image.paste(scaled, (_dots(left), _dots(top)))

    def box(self, left: float, top: float, width: float, height: float, colour: Colour) -> None:
        """A filled rectangle, less a thin white line at its right and lower edge."""
        corner = (_dots(left + width) - 3, _dots(top + height) - 3)
        self._draw.rectangle(((_dots(left), _dots(top)), corner), fill=colour)

    def words(
        self,
        text: str,
        left: float,
        top: float,
        *,
        points: float = 6,
        anchor: str = "ls",
        longest: int = 60,
    ) -> None:
        """Text of one line or several, with the place of its `anchor` as Pillow names them."""
        lines = [shortened(line, longest=longest) for line in text.split("\n")]
        face = font(points * DOTS_PER_INCH / 72)
        for number, line in enumerate(lines):
            # Counted from the last line, which stands at the place.
            up = (len(lines) - 1 - number) * 1.25 * points / 72
            place = (_dots(left), _dots(top - up))
            self._draw.text(place, line, fill=INK, font=face, anchor=anchor)

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG that is never seen half-written."""
        buffer = io.BytesIO()
        dots = (DOTS_PER_INCH, DOTS_PER_INCH)
        # The usual level takes twice as long, for files that are smaller by a third.
        self._image.save(buffer, format="PNG", dpi=dots, compress_level=2)
        write_bytes_atomic(path, buffer.getvalue())


@functools.cache
def font(size: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of `size` pixels as Matplotlib carries it: the same on every machine."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def _dots(inches: float) -> int:
    return round(inches * DOTS_PER_INCH)
