"""Matplotlib figures without a display: an empty one, the look of its axes, and its PNG file."""

from __future__ import annotations

import io
import os
from typing import Any

from avit_jax.runtime.files import write_bytes_atomic


def new_figure(width: float, height: float, **options: Any):
    """An empty figure of `width` x `height` inches; `options` are those of Matplotlib's `Figure`.

    Figures made here belong to no window and to no list of open figures, so nothing has to be
    closed. Matplotlib is imported late: it takes longer than all the rest of the package.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def grid_behind_data(axes) -> None:
    """Draw horizontal grid lines behind the data, and no frame above and to the right of it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def hide_frame(axes) -> None:
    """Leave out the lines around the data."""
    for spine in axes.spines.values():
        spine.set_visible(False)


def shortened(text: str, *, longest: int) -> str:
    """Text that fits above a panel, with question marks for characters that no font can draw."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def png_bytes(figure, *, dots_per_inch: float) -> bytes:
    """The figure as the content of a PNG file."""
    buffer = io.BytesIO()
    metadata = {"Software": "avit_jax"}
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata=metadata)
    return buffer.getvalue()


def write_png(figure, path: str | os.PathLike[str], *, dots_per_inch: float) -> None:
    """Write the figure as a PNG file that is never seen half-written."""
    write_bytes_atomic(path, png_bytes(figure, dots_per_inch=dots_per_inch))
