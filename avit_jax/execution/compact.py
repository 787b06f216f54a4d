"""Compact execution: the answers of masked execution from live work only; the method says how."""

from __future__ import annotations

from typing import Any

from jax import Array

from avit_jax.execution.execution import Execution, Program, rows_may_move
from avit_jax.execution.image_groups import in_groups
from avit_jax.execution.plan import Plan
from avit_jax.models import functional
from avit_jax.models.functional import Params
from avit_jax.types import Output, Usage


def _program(model: Any, plan: Plan) -> Program:
    def run(params: Params, images: Array, exists: Array) -> Output:
        network = functional.bind(model.build, params)
        return in_groups(
            lambda *group: model.compact(network, *group, plan), images, exists, most=plan.images
        )

    return run


def _executed_gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    return model.compact_gmacs(usage, plan)


COMPACT = Execution(
    name="compact",
    program=_program,
    executed_gmacs=_executed_gmacs,
    exact=True,
    fixed_batch=True,
    offered=rows_may_move,
)
