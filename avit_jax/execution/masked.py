"""Masked execution: every token runs, and what is skipped is masked; it defines every method."""

from __future__ import annotations

from typing import Any

from jax import Array

from avit_jax.execution.execution import Execution, Program
from avit_jax.execution.image_groups import of_images
from avit_jax.execution.plan import Plan
from avit_jax.models import costs
from avit_jax.models.functional import Params
from avit_jax.types import Output, Usage


def _program(model: Any, plan: Plan) -> Program:
    def run(params: Params, images: Array, exists: Array) -> Output:
        return of_images(model.apply(params, images))  # images that only fill up are answered, too

    return run


def _executed_gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    image = sum(costs.dense_gmacs(shape, model.layers) for shape in model.stages)
    return image * usage[0].tokens.shape[1]


MASKED = Execution(
    name="masked",
    program=_program,
    executed_gmacs=_executed_gmacs,
    exact=True,
    fixed_batch=False,
)
