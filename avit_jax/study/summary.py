"""From the results of cells to what a study says: means over seeds, and differences in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from avit_jax.study.statistics import mean_of, paired_t_test, sign_test

FIGURES = ("top1", "cross_entropy", "gmacs", "mean_depth", "roughness")
COMPARED = ("top1", "cross_entropy", "gmacs", "roughness")
Result = Mapping[str, Any]  # of a cell, see `cell_process.run`


def trainings_of(results: Iterable[Result], folds: int) -> list[dict[str, Any]]:
    """The results with all folds of one setting and seed put together.

    Args:
        results: of finished cells.
        folds: that make one training, which is none as long as some are missing; 0 where each cell
          is one.

    Returns:
        For each `labels`, `seed`, `fold` (`None` for all folds and for none) and `points`: figures
        that are means over the evaluation images of all folds, and `right`, a bool array of all
        these images.
    """
    groups: dict[tuple, dict[int | None, Result]] = {}
    for one in results:
        fold = None if folds else one["fold"]
        key = (tuple(one["labels"].items()), one["seed"], fold)
        groups.setdefault(key, {})[one["fold"]] = one
    found = []
    for (labels, seed, fold), parts in groups.items():
        if len(parts) == max(folds, 1):
            ordered = [parts[number] for number in sorted(parts, key=lambda one: one or 0)]
            names = [name for name in ordered[0]["points"] if _in_all(name, ordered)]
            points = {name: _together([one["points"][name] for one in ordered]) for name in names}
            found.append({"labels": dict(labels), "seed": seed, "fold": fold, "points": points})
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
        the images as what is drawn at random, each with the mean of all pairs that evaluate it.
    """
    found = []
    for axis, baseline in baselines.items():
        options = dict.fromkeys(one["labels"][axis] for one in trainings)
        for option, point in itertools.product(options, points):
            pairs = _pairs(trainings, axis, option, baseline, point)
            if pairs and option != baseline:
                named = {"axis": axis, "option": option, "baseline": baseline, "point": point}
                found.append(named | _difference(pairs))
    return found


class _Pair(NamedTuple):
    """Figures of an option and of the baseline, evaluated on the images of a fold."""

    fold: int | None
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]

    def difference(self, name: str) -> float | None:
        values = self.ours[name], self.theirs[name]
        return None if None in values else values[0] - values[1]


def _difference(pairs: Sequence[_Pair]) -> dict[str, Any]:
    entry: dict[str, Any] = {"pairs": len(pairs)}
    for name in COMPARED:
        values = [pair.difference(name) for pair in pairs]
        entry[name] = None if None in values else mean_of(values)._asdict()
    top1 = [pair.difference("top1") for pair in pairs]
    return entry | {
        "t_test": paired_t_test(top1),
        "sign_test": sign_test(top1),
        "by_image": mean_of(_by_image(pairs))._asdict(),
    }


def _by_image(pairs: Sequence[_Pair]) -> np.ndarray:
    """Mean difference of each image over the pairs that evaluate it, -1..1."""
    folds: dict[int | None, list[np.ndarray]] = {}
    for pair in pairs:
        difference = pair.ours["right"] - 1.0 * pair.theirs["right"]
        folds.setdefault(pair.fold, []).append(difference)
    return np.concatenate([np.mean(same, 0) for same in folds.values()])


def _pairs(
    trainings: Sequence[Mapping[str, Any]], axis: str, option: str, baseline: str, point: str
) -> list[_Pair]:
    """Trainings of an option and of the baseline that are alike in all else."""

    def of_option(label: str) -> dict[tuple, Mapping[str, Any]]:
        chosen = [one for one in trainings if one["labels"][axis] == label]
        return {_rest(one, axis): one["points"].get(point) for one in chosen}

    ours, theirs = of_option(option), of_option(baseline)
    pairs = [_Pair(rest[-1], ours[rest], theirs.get(rest)) for rest in ours]
    return [pair for pair in pairs if pair.ours is not None and pair.theirs is not None]


def _rest(training: Mapping[str, Any], axis: str) -> tuple:
    """What two trainings of a pair have in common; the fold last."""
    others = [label for name, label in training["labels"].items() if name != axis]
    return (*others, training["seed"], training["fold"])


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
