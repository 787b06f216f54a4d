"""Accuracy over budgets, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    texts = [point.settings_text for point in points]
    names = list(texts[0])
    header = ["budget", "GMACs", "found", "miss", "held out", "of dense", "top-1", "depth", *names]
    timed = any(point.milliseconds is not None for point in points)
    cells = []
    for point, text in zip(points, texts, strict=True):
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
            *(text[name] for name in names),
        ]
        if timed:
            row.append("-" if point.milliseconds is None else f"{point.milliseconds:.4g}")
        cells.append(row)
    dense = points[0].gmacs_dense
    last = ["dense", f"{dense:.4g}", "-", "-", f"{dense:.4g}", "100.0%", f"{top1_dense:.2%}"]
    cells.append(last + ["-"] * (len(cells[0]) - len(last)))
    return [*header, *(["ms a batch"] if timed else [])], cells


def comparison(
    families: Mapping[str, Sequence[OperatingPoint]],
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what several dials make of the same budgets, on the evaluation split.

    Args:
        families: points by the name of the dial, the one to use first.
    """
    (first, points), *others = families.items()
    header = ["budget", f"{first}: GMACs", "top-1"]
    header += [word for name, _ in others for word in (f"{name}: GMACs", "top-1", "difference")]
    cells = []
    for point in points:
        row = [point.name, f"{point.gmacs:.4g}", f"{point.top1:.2%}"]
        for _, theirs in others:
            other = {one.name: one for one in theirs}.get(point.name)
            if other is None:
                break
            row += [
                f"{other.gmacs:.4g}",
                f"{other.top1:.2%}",
                f"{100 * (point.top1 - other.top1):+.2f}",
            ]
        else:
            cells.append(row)
    return header, cells


def exit_rows(gmacs: Sequence[float], top1: Sequence[float]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what each exit knows, if all images stop there."""
    return ["all stop at exit", "GMACs", "top-1"], [
        [f"{number}", f"{cost:.4g}", f"{share:.2%}"]
        for number, (cost, share) in enumerate(zip(gmacs, top1, strict=True), start=1)
    ]


def draw(
    families: Mapping[str, Sequence[OperatingPoint]],
    *,
    exits: tuple[Sequence[float], Sequence[float]] | None = None,
    top1_dense: float,
    images: int,
    file: Path,
) -> Path:
    """Draw top-1 over GMACs, both on the evaluation split, into a PNG.

    Args:
        families: points by the name of their dial, the one to use first, by rising cost.
        exits: GMACs and top-1 of each exit, if all images stop there.
        top1_dense: of the same weights with nothing skipped.
        images: evaluated; they decide the bars of one standard error.
        file: of the picture.
    """

    def error(top1: np.ndarray | float) -> np.ndarray:
        return 100 * np.sqrt(np.asarray(top1) * (1 - np.asarray(top1)) / images)

    figure = new_figure(7, 4.4, layout="constrained")
    axes = figure.subplots()
    bars = {"capsize": 3, "elinewidth": 1, "zorder": 3}
    (name, points), *others = families.items()
    gmacs, top1 = _curve(points)
    axes.errorbar(
        gmacs, 100 * top1, error(top1), color=OKABE_ITO["blue"], marker="o", label=name, **bars
    )
    for (other, theirs), colour in zip(others, ("orange", "purple"), strict=False):
        gmacs, top1 = _curve(theirs)
        style = {"color": OKABE_ITO[colour], "marker": "v", "linestyle": "--", "zorder": 2}
        axes.plot(gmacs, 100 * top1, label=other, **style)
    if exits is not None:
        gmacs, top1 = (np.asarray(values) for values in exits)
        style = {"color": OKABE_ITO["green"], "marker": "D", "linestyle": ":", "zorder": 2}
        axes.plot(gmacs, 100 * top1, label="all images stop at an exit", **style)
        for number, place in enumerate(zip(gmacs, 100 * top1, strict=True), start=1):
            axes.annotate(
                f"exit {number}", place, xytext=(4, -11), textcoords="offset points", fontsize=8
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


def _curve(points: Sequence[OperatingPoint]) -> tuple[np.ndarray, np.ndarray]:
    ordered = sorted(points, key=lambda point: point.gmacs)
    return tuple(np.array([getattr(point, n) for point in ordered]) for n in ("gmacs", "top1"))
