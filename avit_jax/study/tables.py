"""A study as tables: in Markdown for people, one line for each cell for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from avit_jax.checkpoints.operating_points import LEARNT
from avit_jax.study.cells import short_names

_POINT_FIGURES = ("top1", "cross_entropy", "gmacs", "mean_depth", "roughness")
_NONE = "–"
_HOW = (
    "± is half of the 95 % confidence interval of a mean over seeds (Student's t); where there is "
    "none, one seed was trained. Roughness of depth maps is how much patches beside each "
    "other differ, over any two of an image: 1 where maps are noise, less where they are smooth."
)
_PAIRS = (
    "Option minus baseline, in pairs of trainings that are alike in all else. *Over images* is the "
    "same mean with its interval if the evaluation images, instead of the seeds, are what is drawn "
    "at random: what holds for other images has to stand both. p is that of the paired t test and "
    "of the sign test; nothing is corrected for the number of tests."
)


def page(
    name: str,
    status: str,
    settings: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
) -> str:
    """The study in Markdown.

    Args:
        name: of the study.
        status: one sentence about finished and missing cells.
        settings: from `summary.settings_of`.
        differences: from `summary.differences_of`.
    """
    parts = [f"# {name}", status]
    if settings:
        parts.append(_HOW)
    for point in dict.fromkeys(one["point"] for one in settings):
        here = [one for one in settings if one["point"] == point]
        parts += [f"## {title(point)}", markdown(*setting_rows(here))]
    if differences:
        parts += ["## Differences", _PAIRS, markdown(*difference_rows(differences))]
    return "\n\n".join(parts) + "\n"


def title(point: str) -> str:
    """What an operating point is called above a table."""
    return "As learnt" if point == LEARNT else f"At {point.removesuffix('gmacs')} GMACs"


def setting_rows(settings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, one for each setting at one operating point."""
    axes = short_names(list(settings[0]["labels"]))
    header = [*axes.values(), "seeds", "GMACs", "top-1, %", "cross-entropy, nats"]
    header += ["depth, layers", "roughness"]
    rows = []
    for one in settings:
        figures = [
            _mean(one["gmacs"], ".4g", ".1g"),
            _mean(one["top1"], ".2f", ".2f", factor=100),
            _mean(one["cross_entropy"], ".4f", ".4f"),
            _mean(one["mean_depth"], ".2f", ".2f"),
            _mean(one["roughness"], ".3f", ".3f"),
        ]
        rows.append([*one["labels"].values(), str(one["seeds"]), *figures])
    return header, rows


def difference_rows(differences: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what options do otherwise than their baseline."""
    header = ["option", "point", "pairs", "top-1, points", "over images", "better : worse"]
    header += ["p: t, signs", "cross-entropy, nats", "GMACs", "roughness"]
    rows = []
    for one in differences:
        signs = one["sign_test"]
        rows.append(
            [
                f"{one['option']} - {one['baseline']}",
                one["point"],
                str(one["pairs"]),
                _mean(one["top1"], "+.2f", ".2f", factor=100),
                _mean(one["by_image"], "+.2f", ".2f", factor=100),
                f"{signs['above']} : {signs['below']}",
                f"{_probability(one['t_test'])}, {_probability(signs['p_value'])}",
                _mean(one["cross_entropy"], "+.4f", ".4f"),
                _mean(one["gmacs"], "+.2g", ".1g"),
                _mean(one["roughness"], "+.3f", ".3f"),
            ]
        )
    return header, rows


def last_words(
    settings: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """What the terminal shows in the end: differences, or settings where nothing is compared."""
    if differences:
        return difference_rows(differences)
    return setting_rows([one for one in settings if one["point"] == LEARNT])


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def cell_lines(results: Sequence[Mapping[str, Any]], points: Sequence[str]) -> str:
    """All finished cells as CSV, one line each.

    Columns are `cell`, the axes, `seed`, `fold`, figures as learnt (`top1`), those at the budgets
    (`top1@0.006gmacs`, empty where the cell cannot be set to it), those of its training, `seconds`.
    """
    lines = [_line(one, points) for one in results]
    names = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(result: Mapping[str, Any], points: Sequence[str]) -> dict[str, Any]:
    line = {"cell": result["name"], **result["labels"]}
    line |= {"seed": result["seed"], "fold": result["fold"]}
    for point in points:
        figures = result["points"].get(point, {})
        ending = "" if point == LEARNT else f"@{point}"
        line |= {f"{name}{ending}": figures.get(name) for name in _POINT_FIGURES}
    return line | result["training"] | {"seconds": round(result["seconds"], 2)}


def _mean(mean: Mapping[str, Any] | None, style: str, wide: str, *, factor: float = 1.0) -> str:
    if mean is None:
        return _NONE
    text = format(factor * mean["mean"], style)
    half = mean["half_width"]
    return text if half is None else f"{text} ± {format(factor * half, wide)}"


def _probability(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2g}"
