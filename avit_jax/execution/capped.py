"""Capped execution: a fixed number of places for tokens in each layer, the most that may run.

Not exact where an image needs more places than there are: the method says which of its tokens are
then dropped, and `aux["dropped"]` how many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import Array

from avit_jax.execution.execution import Execution, Program, rows_may_move
from avit_jax.execution.image_groups import filled_up, in_groups
from avit_jax.execution.plan import Plan
from avit_jax.models import functional
from avit_jax.models.functional import Params
from avit_jax.types import Output, Usage


def _program(model: Any, plan: Plan) -> Program:
    def run(params: Params, images: Array, exists: Array) -> Output:
        network = functional.bind(model.build, params)
        return in_groups(
            lambda *group: model.capped(network, *group, plan), images, exists, most=plan.images
        )

    return run


def image_gmacs(model: Any, plan: Plan) -> float:
    """Multiply-adds that every image costs, in units of 1e9.

    Places are computed whether a live token is in them or not.
    """
    shape = model.shape
    capacities = np.maximum(plan.capacities, shape.num_prefix_tokens)
    capacities[model.layers :] = 0
    places = np.arange(shape.num_tokens) < capacities[:, None]
    return float(model.inference_gmacs((Usage(tokens=places[:, None, :]),))[0])


def _executed_gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    return image_gmacs(model, plan) * filled_up(usage[0].tokens.shape[1], plan.images)


CAPPED = Execution(
    name="capped",
    program=_program,
    executed_gmacs=_executed_gmacs,
    exact=False,
    fixed_batch=True,
    offered=lambda model: model.has_capped and rows_may_move(model),
)
