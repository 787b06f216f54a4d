"""One training of a study: which options it has, and the name of its folder."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from avit_jax.errors import UserError

_ODD = re.compile(r"[^A-Za-z0-9._+-]+")  # in names of folders


class Setting(NamedTuple):
    """One option of an axis: what the tables call it, and what it changes in a config."""

    label: str
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        name: of its folder, see `name_of`.
        labels: the option of each axis.
        seed: of the training.
        fold: of a cross-validation, from 0; `None` without one.
        config: of the training.
    """

    name: str
    labels: Mapping[str, str]
    seed: int
    fold: int | None
    config: ConfigDict


def name_of(labels: Mapping[str, str], seed: int, fold: int | None) -> str:
    """The name of a cell: made of its settings, so that it stays when others come and go."""
    short = short_names(list(labels))
    parts = {short[axis]: label for axis, label in labels.items()} | {"seed": str(seed)}
    if fold is not None:
        parts["fold"] = str(fold)
    return ",".join("=".join(_ODD.sub("_", text) for text in (name, parts[name])) for name in parts)


def options_of(axis: str, values: Sequence[Any] | Mapping[str, Any]) -> list[Setting]:
    """The options of an axis as a study file writes them.

    Raises:
        UserError: values that have no name of their own, or twice the same.
    """
    if isinstance(values, Mapping):
        found = [
            Setting(str(label), dict(value) if isinstance(value, Mapping) else {axis: value})
            for label, value in values.items()
        ]
    else:
        unnamed = [v for v in values if not isinstance(v, str | int | float | None)]
        if unnamed:
            raise UserError(
                f"axis {axis!r} has the value {unnamed[0]!r}, which makes no name: write its "
                'values with names, as {"two peaks": VALUE}.'
            )
        found = [Setting(_text(value), {axis: value}) for value in values]
    labels = [one.label for one in found]
    if len(set(labels)) < len(labels):
        raise UserError(f"axis {axis!r} has the values {', '.join(labels)}: write each once.")
    return found


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """What tables call the axes: the last part of a key, or all of it where two end alike."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return {
        axis: axis if last.count(name) > 1 or name in ("seed", "fold") else name
        for axis, name in zip(axes, last, strict=True)
    }


def refuse_same_names(cells: Sequence[Cell]) -> None:
    """Raises UserError where two cells would share a folder."""
    counts = collections.Counter(cell.name for cell in cells)
    name, number = counts.most_common(1)[0]
    if number > 1:
        raise UserError(
            f"{number} cells of the study have the name {name!r}: write names for their values "
            "that differ in letters and digits."
        )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
