"""An exported program held against the model that it was made from."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from avit_jax.data.image_selection import read_selection
from avit_jax.errors import UserError
from avit_jax.execution.execution import Execution
from avit_jax.execution.masked import MASKED
from avit_jax.execution.plan import Plan
from avit_jax.experiment import Experiment
from avit_jax.export.program import answers
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params

IMAGES = 32


class Comparison(NamedTuple):
    """How far an exported program is from the model.

    Attributes:
        logits: largest absolute difference.
        depths: tokens that went through another number of layers.
        tokens: that were compared.
    """

    logits: float
    depths: int
    tokens: int


def check_images(experiment: Experiment) -> tuple[np.ndarray, str]:
    """Images to compare on, uint8 `[B, S, S, 3]`, and what they are: noise, without the data."""
    size = experiment.model.shape.image_size
    try:
        chosen = experiment.eval_images(IMAGES)
    except UserError:
        noise = np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)
        return noise, f"{IMAGES} images of noise, for the data are not at hand"
    images, _ = read_selection(chosen, size=size, augment=experiment.settings.data.augment)
    return images, f"{len(images)} images of {chosen.title}"


def compare(
    model: Model,
    params: Params,
    images: np.ndarray,
    found: Mapping[str, np.ndarray],
    *,
    execution: Execution,
    plan: Plan | None = None,
) -> Comparison:
    """The answers `found` of an exported program against the model's own.

    Args:
        model: that was exported.
        params: its parameters.
        images: uint8 `[B, H, W, 3]`.
        found: `logits` and `depth` of these images.
        execution: of the program. Exact ones are compared with masked execution, which is written
            down independently.
        plan: static sizes, where the answers depend on them.
    """
    reference = functools.partial(
        answers,
        model,
        execution=MASKED if execution.exact else execution,
        plan=plan or model.default_plan(len(images)),
    )
    expected = jax.jit(reference)(params, images, np.ones(len(images), bool))
    difference = np.abs(np.asarray(expected["logits"]) - found["logits"])
    return Comparison(
        logits=float(difference.max()),
        depths=int((np.asarray(expected["depth"]) != found["depth"]).sum()),
        tokens=found["depth"].size,
    )
