"""Which charts a report has, and the same in words for readers who cannot see pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from avit_jax.viz import depth_charts, difficulty, exit_charts, usage_charts
from avit_jax.viz.chart_style import Chart


class Chosen(NamedTuple):
    """A chart of a report.

    Attributes:
        name: of its file, without the ending.
        title: shown above it.
        draw: makes the picture.
        words: what the picture shows, as alternative text.
    """

    name: str
    title: str
    draw: Chart
    words: str


def chosen(summary: dict[str, Any]) -> Iterator[Chosen]:
    """The charts that fit the summary of a report, see `image_statistics.summarise`."""
    classes, lines = summary["classes"], summary["kept_per_layer"]
    yield Chosen(
        "depth_histogram",
        "Depth of all tokens",
        depth_charts.depth_histogram,
        f"Share of tokens by depth: {_percent(summary['depth_histogram'])}",
    )
    yield Chosen(
        "live_tokens",
        "Tokens computed per layer",
        depth_charts.live_tokens,
        f"Tokens computed, by layer: {_percent(summary['live']['mean'])}",
    )
    if lines:
        parts = "; ".join(
            f"{usage_charts.name_of(part)} {_percent(line)}" for part, line in lines.items()
        )
        title = "Heads and halves run per layer"
        yield Chosen("kept_per_layer", title, usage_charts.kept_per_layer, f"By layer: {parts}")
    if classes:
        text = " to ".join(f"{one['name']} {one['mean_depth']:.1f}" for one in _ends(classes))
        words = f"Mean depth per class, from {text}"
        yield Chosen("class_depth", "Depth per class", depth_charts.class_depth, words)
    if summary["exits"] is not None:
        stopped = _percent(summary["exits"]["stopped"])
        words = f"Share of the images that stop at each exit: {stopped}"
        yield Chosen("exits", "Where images stop", exit_charts.stopped, words)
    if summary["exits"] is not None and summary["exits"]["top1"] is not None:
        words = f"Right if each exit answers at the latest: {_percent(summary['exits']['top1'])}"
        yield Chosen("exit_accuracy", "Accuracy and cost by exit", exit_charts.accuracy, words)
    if classes and lines:
        cheap, dear = _ends(sorted(classes, key=lambda one: one["gmacs"]))
        text = f"Share that ran per class, from {_of_class(cheap)} to {_of_class(dear)}"
        yield Chosen("class_kept", "Usage per class", usage_charts.class_kept, text)
    yield Chosen(
        "cost_and_difficulty",
        "Cost and difficulty",
        usage_charts.cost_and_difficulty,
        f"Cost of images against confidence: {difficulty.in_words(summary['difficulty'])}",
    )


def _ends(classes: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    return classes[0], classes[-1]


def _of_class(one: dict[str, Any]) -> str:
    shares = ", ".join(f"{part} {share:.0%}" for part, share in one["kept"].items())
    return f"{one['name']} ({shares})"


def _percent(shares) -> str:
    return " ".join(f"{share:.0%}" for share in shares)
