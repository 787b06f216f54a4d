"""What `--mode predict` says about each image, as one JSON line, and its sum over all lines."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any, Self

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.config import to_json
from avit_jax.data.example import Source
from avit_jax.data.inference_batches import Loaded
from avit_jax.errors import NOT_FINITE, UserError
from avit_jax.execution.executions import find
from avit_jax.execution.plan import Plan
from avit_jax.models.functional import Params

Line = dict[str, Any]
FORMAT = 1


def make_lines(source: Source, loaded: Loaded, answers: dict[str, np.ndarray]) -> list[Line]:
    """One line for each image of a batch.

    A line is `{"image", "label", "class_index", "confidence", "depth", "gmacs"}`, with
    `"true_label"` and `"true_class_index"` where the true class is known, `"dropped"` (tokens)
    where execution is capped and `"exit"` (from 0) where the model has several; or
    `{"image", "error"}`.

    Args:
        source: of the images.
        loaded: the batch.
        answers: the numbers of each row under their names in the line, each `[B]`.
    """
    return [
        _line(
            source,
            loaded.start + row,
            reason=reason,
            true_class=loaded.labels[row],
            answer={name: values[row].item() for name, values in answers.items()},
        )
        for row, reason in enumerate(loaded.reasons)
    ]


def _line(
    source: Source, index: int, *, reason: str | None, true_class: int | None, answer: Line
) -> Line:
    line: Line = {"image": source.describe(index)}
    if reason is None and not math.isfinite(answer["confidence"]):
        reason = NOT_FINITE
    if reason is not None:
        return line | {"error": reason}
    names = source.class_names
    line |= {"label": names[answer["class_index"]], "class_index": answer["class_index"]}
    line |= {name: significant(answer[name]) for name in ("confidence", "depth", "gmacs")}
    line |= {name: answer[name] for name in ("dropped", "exit") if name in answer}
    if is_labelled(source, index):
        line |= {"true_label": names[true_class], "true_class_index": true_class}
    return line


def is_labelled(source: Source, index: int) -> bool:
    """Whether the true class of an image is known; of datasets it always is."""
    labelled = getattr(source, "labelled", None)
    return labelled is None or labelled(index)


def significant(value: float) -> float:
    """Rounded to the six digits that float32 arithmetic can stand for."""
    return float(f"{value:.6g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over lines; `add` returns the next ones and leaves these as they are.

    Attributes:
        lines: all of them.
        bad: those of images without an answer.
        labelled: those with a true class.
        correct: those whose answer is the true class.
        affected: those of images that lost tokens for want of places (capped execution).
        depth, gmacs: summed over the images with an answer.
    """

    lines: int = 0
    bad: int = 0
    labelled: int = 0
    correct: int = 0
    affected: int = 0
    depth: float = 0.0
    gmacs: float = 0.0

    def add(self, line: Line) -> Self:
        """Returns the sums with one line more."""
        if "error" in line:
            return dataclasses.replace(self, lines=self.lines + 1, bad=self.bad + 1)
        labelled = "true_class_index" in line
        correct = labelled and line["true_class_index"] == line["class_index"]
        return dataclasses.replace(
            self,
            lines=self.lines + 1,
            labelled=self.labelled + labelled,
            correct=self.correct + correct,
            affected=self.affected + (line.get("dropped", 0) > 0),
            depth=self.depth + line["depth"],
            gmacs=self.gmacs + line["gmacs"],
        )

    def mean(self, total: float) -> float:
        """A sum as the mean over the images with an answer; NaN where there is none."""
        answered = self.lines - self.bad
        return total / answered if answered else math.nan


def identity(
    config: ConfigDict,
    source: Source,
    params: Params,
    *,
    part: range,
    step: int | None,
    execution: str,
    plan: Plan | None,
) -> dict[str, Any]:
    """What decides the lines; a file is continued only where all of it is the same."""
    shown = ConfigDict(
        {"model": config.model, "method": config.method, "crop": config.data.augment.crop_ratio}
    )
    return {
        "format": FORMAT,
        "model": config.model.name,
        "checkpoint_step": step,
        "weights_sha256": _sha256(np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(params)),
        "config_sha256": _sha256([to_json(shown).encode()]),
        "execution": execution,
        # Sizes touch no answers but those of executions that are not exact.
        "capacities": None if plan is None or find(execution).exact else plan.capacities,
        "input": source.name,
        "images": len(source),
        "names_sha256": _sha256(_names(source)),
        "classes_sha256": _sha256(name.encode() + b"\0" for name in source.class_names),
        "part": [part.start, part.stop],
    }


def expect_image(source: Source, index: int, line: Line) -> None:
    """Refuse a line that is about another image than `index`.

    Raises:
        UserError: somebody has changed the file.
    """
    found, expected = line.get("image"), source.describe(index)
    if found != expected:
        raise UserError(
            f"a line of the output is about {found!r} where {expected!r} was expected, so the file "
            "has been changed since: write another --output, or remove it."
        )


def _names(source: Source):
    for index in range(len(source)):
        yield source.describe(index).encode("utf-8", "surrogateescape") + b"\0"


def _sha256(parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
