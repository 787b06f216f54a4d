"""The picture of where the wall time of a training went: one bar, cut into its parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from avit_jax.viz.matplotlib_figure import new_figure, write_png
from avit_jax.viz.palette import GREY, OKABE_ITO

WIDTH, HEIGHT, DOTS_PER_INCH = 9.0, 2.4, 150
COLOURS = (
    OKABE_ITO["green"],
    OKABE_ITO["vermilion"],
    OKABE_ITO["orange"],
    OKABE_ITO["purple"],
    OKABE_ITO["blue"],
    "#000000",
    GREY,
)
LEAST_WRITTEN = 0.06  # share of the bar that has room for its own number


def write(parts: Mapping[str, float], path: Path) -> None:
    """Draw `goodput.parts`.

    Args:
        parts: seconds by what they went into.
        path: of the PNG file.
    """
    total = sum(parts.values()) or 1.0
    figure = new_figure(WIDTH, HEIGHT, layout="constrained")
    axes = figure.add_subplot()
    begins = 0.0
    for (name, seconds), colour in zip(parts.items(), COLOURS, strict=True):
        label = f"{name}, {_time(seconds)}"
        axes.barh(0, seconds / total, left=begins, height=0.7, color=colour, label=label)
        if seconds / total >= LEAST_WRITTEN:
            middle = begins + seconds / total / 2
            axes.text(middle, 0, f"{seconds / total:.0%}", ha="center", va="center", color="white")
        begins += seconds / total
    axes.set(xlim=(0, 1), yticks=[], xlabel="share of the wall time")
    axes.xaxis.set_major_formatter(lambda share, position: f"{share:.0%}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    steps = next(iter(parts.values()))
    axes.set_title(
        f"{steps / total:.0%} of {_time(sum(parts.values()))} went into steps that count",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    write_png(figure, path, dots_per_inch=DOTS_PER_INCH)


def _time(seconds: float) -> str:
    """A length of time with the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds else "0 s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
