"""From the results of cells to what a study says: means over seeds, and differences in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from avit_jax.study.statistics import mean_of, paired_t_test, sign_test

FIGURES = ("top1", "cross_entropy", "gmacs", "mean_depth", "roughness")
COMPARED = ("top1", "cross_entropy", "gmacs", "roughness")
Result = Mapping[str, Any]  # of a cell, see `cell_process.run`


def trainings_of(results: Iterable[Result], folds: int) -> list[dict[str, Any]]:
    """The results with all folds of one setting and seed put together.

    Args:
        results: of finished cells.
        folds: of the cross-validation; 0 without one. Where some are missing, there is no training.

    Returns:
        For each `labels`, `seed` and `points`: figures that are means over the evaluation images of
        all folds, and `right`, a bool array of all these images.
    """
    groups: dict[tuple, dict[int | None, Result]] = {}
    for one in results:
        key = (*one["labels"].items(), one["seed"])
        groups.setdefault(key, {})[one["fold"]] = one
    wanted = list(range(folds)) if folds else [None]
    found = []
    for parts in groups.values():
        if all(fold in parts for fold in wanted):
            ordered = [parts[fold] for fold in wanted]
            names = [name for name in ordered[0]["points"] if _in_all(name, ordered)]
            points = {name: _together([one["points"][name] for one in ordered]) for name in names}
            found.append(
                {"labels": dict(ordered[0]["labels"]), "seed": ordered[0]["seed"], "points": points}
            )
    return found


def settings_of(
    trainings: Sequence[Mapping[str, Any]], points: Sequence[str]
) -> list[dict[str, Any]]:
    """One entry for each setting and operating point: means over its seeds.

    Args:
        trainings: from `trainings_of`.
        points: in the order to list them in.

    Returns:
        `point`, `labels`, `seeds` (count), and a `Mean` for each of `FIGURES` that all have.
    """
    found = []
    for point in points:
        groups: dict[tuple, list[Mapping[str, Any]]] = {}
        for one in trainings:
            if point in one["points"]:
                groups.setdefault(tuple(one["labels"].items()), []).append(one["points"][point])
        for labels, seeds in groups.items():
            entry: dict[str, Any] = {"point": point, "labels": dict(labels), "seeds": len(seeds)}
            for name in FIGURES:
                values = [one[name] for one in seeds]
                entry[name] = None if None in values else mean_of(values)._asdict()
            found.append(entry)
    return found


def differences_of(
    trainings: Sequence[Mapping[str, Any]], baselines: Mapping[str, str], points: Sequence[str]
) -> list[dict[str, Any]]:
    """How the options of an axis differ from its baseline, in pairs that are alike in all else.

    Args:
        trainings: from `trainings_of`.
        baselines: an option for each axis to compare.
        points: operating points to compare at.

    Returns:
        For each axis, other option and point with a pair: `axis`, `option`, `baseline`, `point`,
        `pairs` (count), for each of `COMPARED` the `Mean` of option minus baseline over the pairs,
        `t_test` and `sign_test` of top-1, and `by_image`: the `Mean` of the same difference with
        the images as what is drawn at random, each with the mean of all pairs.
    """
    found = []
    for axis, baseline in baselines.items():
        options = dict.fromkeys(one["labels"][axis] for one in trainings)
        for option, point in itertools.product(options, points):
            pairs = _pairs(trainings, axis, option, baseline, point) if option != baseline else []
            if pairs:
                named = {"axis": axis, "option": option, "baseline": baseline, "point": point}
                found.append(named | _difference(pairs))
    return found


def _difference(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"pairs": len(pairs)}
    for name in COMPARED:
        known = all(one[name] is not None for pair in pairs for one in pair)
        values = [ours[name] - theirs[name] for ours, theirs in pairs] if known else None
        entry[name] = None if values is None else mean_of(values)._asdict()
    top1 = [ours["top1"] - theirs["top1"] for ours, theirs in pairs]
    images = np.mean([ours["right"] - 1.0 * theirs["right"] for ours, theirs in pairs], 0)
    return entry | {
        "t_test": paired_t_test(top1),
        "sign_test": sign_test(top1),
        "by_image": mean_of(images)._asdict(),
    }


def _pairs(
    trainings: Sequence[Mapping[str, Any]], axis: str, option: str, baseline: str, point: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Figures of an option and of the baseline, of trainings that are alike in all else."""

    def by_rest(label: str) -> dict[tuple, Mapping[str, Any]]:
        return {
            (*((a, b) for a, b in one["labels"].items() if a != axis), one["seed"]): one["points"][
                point
            ]
            for one in trainings
            if one["labels"][axis] == label and point in one["points"]
        }

    ours, theirs = by_rest(option), by_rest(baseline)
    return [(ours[rest], theirs[rest]) for rest in ours if rest in theirs]


def _together(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures over the images of all folds."""
    images = np.array([one["images"] for one in folds], np.float64)
    found: dict[str, Any] = {"images": int(images.sum())}
    for name in FIGURES:
        values = [one[name] for one in folds]
        known = None not in values
        found[name] = float(np.average(values, weights=images)) if known else None
    found["right"] = np.array([answer == "1" for one in folds for answer in one["right"]])
    return found


def _in_all(name: str, folds: Sequence[Result]) -> bool:
    return all(name in one["points"] for one in folds)
