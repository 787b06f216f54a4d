"""A benchmark as a picture: throughput against multiply-adds, and how much of the ideal arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avit_jax.viz.matplotlib_figure import grid_behind_data, new_figure, write_png
from avit_jax.viz.palette import EXECUTION_STYLES, GREY

LIVE_ROWS = ("compact", "static")  # exact executions that leave halted tokens out


def plot(cases: list[dict[str, Any]], file: Path) -> Path:
    """Draw the cases of a `benchmark.json` into a PNG."""
    figure = new_figure(11, 4.6, layout="constrained")
    speed, share = figure.subplots(1, 2)
    for name in dict.fromkeys(name for case in cases for name in case["executions"]):
        raced = [case for case in cases if name in case["executions"]]
        points = [case["executions"][name] for case in raced]
        execution, _, devices = name.partition(", ")
        colour, marker = EXECUTION_STYLES.get(execution, (GREY, "*"))
        speed.scatter(
            [figures["gmacs_executed"] for figures in points],
            [figures["images_per_second"] for figures in points],
            edgecolors=colour,
            facecolors="none" if devices else colour,
            marker=marker,
            label=name,
            zorder=3,
        )
        for case, figures in zip(raced, points, strict=True):
            speed.annotate(
                str(case["batch_size"]),
                (figures["gmacs_executed"], figures["images_per_second"]),
                textcoords="offset points",
                xytext=(4, 3),
                fontsize=7,
                color=colour,
            )
    speed.set(xlabel="GMACs run per image", ylabel="images/s; numbers are images per batch")
    if cases:
        speed.set(xlim=(0, 1.1 * speed.dataLim.x1), ylim=(0, 1.1 * speed.dataLim.y1))
        speed.legend(frameon=False, loc="lower left")
    live = [
        (case, name)
        for case in cases
        for name in case["executions"]
        if name.partition(", ")[0] in LIVE_ROWS
    ]
    labels = [f"{name}, {case['profile']}\nbatch {case['batch_size']}" for case, name in live]
    heights = [case["executions"][name]["share_of_ideal"] for case, name in live]
    colours = [EXECUTION_STYLES[name.partition(", ")[0]][0] for _, name in live]
    share.bar(range(len(live)), heights, color=colours, width=0.6)
    share.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
    for index, height in enumerate(heights):
        share.text(index, height + 0.01, f"{height:.2f}", ha="center", fontsize=8)
    share.set_xticks(range(len(live)), labels, fontsize=8, rotation=90 if len(live) > 6 else 0)
    share.set(ylabel="share of the ideal speed-up", ylim=(0, 1.15), xlim=(-1, max(1, len(live))))
    for axes in (speed, share):
        grid_behind_data(axes)
    write_png(figure, file, dots_per_inch=150)
    return file
