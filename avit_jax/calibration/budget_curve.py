"""Accuracy over budgets, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avit_jax.checkpoints.operating_points import LEARNT, OperatingPoint
from avit_jax.viz.matplotlib_figure import grid_behind_data, new_figure, write_png
from avit_jax.viz.palette import GREY, OKABE_ITO


def rows(
    points: Sequence[OperatingPoint], *, top1_dense: float
) -> tuple[list[str], list[list[str]]]:
    """Header and rows for `tables.columns`: the points, then the same weights with nothing skipped.

    Args:
        points: by rising cost.
        top1_dense: of dense execution.
    """
    names = list(points[0].settings)
    header = ["budget", "GMACs", "found", "miss", "held out", "of dense", "top-1", "depth", *names]
    timed = any(point.milliseconds is not None for point in points)
    cells = []
    for point in points:
        target = point.target_gmacs
        found = point.gmacs_calibration
        row = [
            point.name,
            "-" if target is None else f"{target:.4g}",
            f"{found:.4g}",
            "-" if target is None else f"{found / target - 1:+.1%}",
            f"{point.gmacs:.4g}",
            f"{point.gmacs / point.gmacs_dense:.1%}",
            f"{point.top1:.2%}",
            f"{point.mean_depth:.2f}",
            *(f"{point.settings[name]:.5g}" for name in names),
        ]
        if timed:
            row.append("-" if point.milliseconds is None else f"{point.milliseconds:.4g}")
        cells.append(row)
    dense = points[0].gmacs_dense
    last = ["dense", f"{dense:.4g}", "-", "-", f"{dense:.4g}", "100.0%", f"{top1_dense:.2%}"]
    cells.append(last + ["-"] * (len(cells[0]) - len(last)))
    return [*header, *(["ms a batch"] if timed else [])], cells


def draw(points: Sequence[OperatingPoint], *, top1_dense: float, images: int, file: Path) -> Path:
    """Draw top-1 over GMACs, both on the evaluation split, into a PNG.

    Args:
        points: by rising cost.
        top1_dense: of the same weights with nothing skipped.
        images: evaluated; they decide the bars of one standard error.
        file: of the picture.
    """

    def error(top1: np.ndarray | float) -> np.ndarray:
        return 100 * np.sqrt(np.asarray(top1) * (1 - np.asarray(top1)) / images)

    figure = new_figure(7, 4.4, layout="constrained")
    axes = figure.subplots()
    gmacs, top1 = (np.array([getattr(point, n) for point in points]) for n in ("gmacs", "top1"))
    bars = {"capsize": 3, "elinewidth": 1, "zorder": 3}
    axes.errorbar(
        gmacs,
        100 * top1,
        error(top1),
        color=OKABE_ITO["blue"],
        marker="o",
        label="dialled",
        **bars,
    )
    axes.errorbar(
        [points[0].gmacs_dense],
        [100 * top1_dense],
        error(top1_dense),
        color=GREY,
        marker="s",
        linestyle="none",
        label="dense, same weights",
        **bars,
    )
    for point in points:
        if point.name == LEARNT:
            axes.plot(
                point.gmacs,
                100 * point.top1,
                color=OKABE_ITO["vermilion"],
                marker="*",
                markersize=15,
                linestyle="none",
                label="as learnt",
                zorder=4,
            )
        else:
            axes.annotate(
                point.name,
                (point.gmacs, 100 * point.top1 + error(point.top1)),  # above its bar
                xytext=(0, 4),
                textcoords="offset points",
                horizontalalignment="center",
                fontsize=8,
            )
    axes.set(xlabel="GMACs per image", ylabel="top-1, % (bars: one standard error)")
    axes.margins(x=0.06, y=0.15)
    axes.legend(frameon=False, loc="lower right")
    grid_behind_data(axes)
    write_png(figure, file, dots_per_inch=150)
    return file
