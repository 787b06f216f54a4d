"""A benchmark as a picture: throughput against multiply-adds, and how much of the ideal arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avit_jax.viz.matplotlib_figure import grid_behind_data, new_figure, write_png
from avit_jax.viz.palette import EXECUTION_STYLES, GREY


def plot(cases: list[dict[str, Any]], file: Path) -> Path:
    """Draw the cases of a `benchmark.json` into a PNG."""
    figure = new_figure(11, 4.6, layout="constrained")
    speed, share = figure.subplots(1, 2)
    for name in dict.fromkeys(name for case in cases for name in case["executions"]):
        points = [case["executions"][name] for case in cases if name in case["executions"]]
        colour, marker = EXECUTION_STYLES.get(name, (GREY, "*"))
        speed.scatter(
            [figures["gmacs_executed"] for figures in points],
            [figures["images_per_second"] for figures in points],
            color=colour,
            marker=marker,
            label=name,
            zorder=3,
        )
    speed.margins(0.08)
    speed.set(xlabel="GMACs run per image", ylabel="images/s", xlim=(0, None), ylim=(0, None))
    speed.legend(frameon=False)
    compact = [case for case in cases if "compact" in case["executions"]]
    labels = [f"{case['profile']}\nbatch {case['batch_size']}" for case in compact]
    heights = [case["executions"]["compact"]["share_of_ideal"] for case in compact]
    share.bar(range(len(compact)), heights, color=EXECUTION_STYLES["compact"][0], width=0.6)
    share.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
    for index, height in enumerate(heights):
        share.text(index, height + 0.01, f"{height:.2f}", ha="center", fontsize=8)
    share.set_xticks(range(len(compact)), labels, fontsize=8)
    share.set(ylabel="share of the ideal speed-up", ylim=(0, 1.15))
    for axes in (speed, share):
        grid_behind_data(axes)
    write_png(figure, file, dots_per_inch=150)
    return file
