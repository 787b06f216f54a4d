"""What executions answer, beside masked execution, which is what a method is defined by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from avit_jax.benchmark.cases import Case
from avit_jax.errors import UserError
from avit_jax.execution.predictor import Predictor
from avit_jax.models.functional import Params
from avit_jax.types import Usage

BORDER = 1e-5  # a decision so close to its threshold may go either way in reordered sums


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one execution answers for all images of a case, and what it computed for them.

    Attributes:
        logits: `[n, C]`.
        usage: what ran, per stage.
        near: `[n]` bool, images with a decision within `BORDER` of its threshold; masked only.
        dropped: `[n]` bool, images that lost tokens; capped only.
    """

    logits: np.ndarray
    usage: tuple[Usage, ...]
    near: np.ndarray | None = None
    dropped: np.ndarray | None = None

    def top1(self, labels: np.ndarray) -> float:
        """Share of the images whose class is right."""
        return float((self.logits.argmax(-1) == labels).mean())


def masked_answers(case: Case) -> Answers:
    """Answers of masked execution, which is what the method is defined by.

    Raises:
        UserError: the method does not say how near its decisions are to their threshold.
    """

    @jax.jit
    def apply(params: Params, images: Array) -> tuple[Array, Usage, Array]:
        output = case.model.apply(params, images)
        if "margin" not in output.aux:
            raise UserError(
                f"method {case.model.name} gives no margin, without which answers near a threshold "
                "cannot be told from wrong ones: add it to aux, see avit_jax/methods/base.py."
            )
        return output.logits, output.usage, output.aux["margin"] < BORDER

    logits, usage, near = _in_batches(case, lambda images: apply(case.params, images), (0, 1, 0))
    return Answers(logits=logits, usage=usage, near=near)


def program_answers(case: Case, program: Predictor) -> Answers:
    """Answers of a compiled program, to be compared with those of masked execution."""

    def run(images: np.ndarray) -> tuple[Any, ...]:
        output = program(images)
        known = (output.logits, output.usage)
        return (*known, output.aux["dropped"]) if "dropped" in output.aux else known

    logits, usage, *dropped = _in_batches(case, run, (0, 1, 1))
    return Answers(logits=logits, usage=usage, dropped=(dropped[0] > 0).any(0) if dropped else None)


def compare(case: Case, answers: Answers, masked: Answers, *, exact: bool) -> dict[str, Any]:
    """How far answers are from masked execution's, for machines.

    Args:
        case: with labels where there are any.
        answers: of a compiled program, from `program_answers`.
        masked: of masked execution, from `masked_answers`, on the same images.
        exact: whether they should be the same, so that the logits' difference says something.

    Returns:
        `same_class` (share of the images), `logit_difference` (largest, without images near the
        threshold), `images_affected` (share that lost tokens), `top1`, `top1_change`
        (against masked execution), as far as they apply.
    """
    same = answers.logits.argmax(-1) == masked.logits.argmax(-1)
    figures: dict[str, Any] = {"same_class": float(same.mean())}
    if exact:
        difference = np.abs(answers.logits - masked.logits).max(-1)
        figures["logit_difference"] = float(difference[~masked.near].max(initial=0.0))
        figures["images_near_threshold"] = int(masked.near.sum())
    if answers.dropped is not None:
        figures["images_affected"] = float(answers.dropped.mean())
    if case.labels is not None:
        figures["top1"] = answers.top1(case.labels)
        figures["top1_change"] = figures["top1"] - masked.top1(case.labels)
    return figures


def _in_batches(
    case: Case, function: Callable[[np.ndarray], tuple[Any, ...]], axes: tuple[int, ...]
) -> list[Any]:
    """The arrays that a function gives for each batch of a case, joined along `axes`."""
    size = len(case.timed)
    parts = [
        jax.tree.map(np.asarray, function(case.images[first : first + size]))
        for first in range(0, len(case.images), size)
    ]
    return [
        jax.tree.map(lambda *arrays, axis=axis: np.concatenate(arrays, axis=axis), *values)
        for values, axis in zip(zip(*parts, strict=True), axes, strict=False)
    ]
