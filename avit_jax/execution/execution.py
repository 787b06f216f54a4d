"""What an execution is: a way to run a finished model on a batch of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from avit_jax.execution.plan import Plan
from avit_jax.models.functional import Params
from avit_jax.types import Output, Usage

# Of the images of one device: (params, normalised images `[b, H, W, 3]`, exists `[b]` bool).
Program = Callable[[Params, Array, Array], Output]


def _by_every_model(model: Any) -> bool:
    return True


def rows_may_move(model: Any) -> bool:
    """Whether tokens may be left out and the others moved together."""
    return not model.shape.tokens_keep_slots


def _never(plan: Plan) -> bool:
    return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """One way to run a model; all there are stand in `executions.py`.

    Attributes:
        name: in configs and on the command line.
        program: of a model and static sizes: a pure function of one device's images, whose `Output`
          has logits, usage and what belongs to single images.
        executed_gmacs: of a model, the usage of one device's batch (per stage) and static sizes:
          multiply-adds that the program runs for that batch, padding included, in units of 1e9.
        exact: whether its answers are those of masked execution, which define the method.
        fixed_batch: whether the program's sizes depend on the number of images.
        offered: whether a model can run so.
        needs_sizes: whether a plan lacks sizes of the program, which must be measured.
        sized: of a model, what ran for a batch (per stage), a plan and the number of images of one
          device: the plan with these sizes.
        fallback: what answers instead for a batch in which not everything found a place
          (`Output.fits`), for programs whose numbers of places are fixed in advance.
    """

    name: str
    program: Callable[[Any, Plan], Program]
    executed_gmacs: Callable[[Any, tuple[Usage, ...], Plan], float]
    exact: bool
    fixed_batch: bool
    offered: Callable[[Any], bool] = _by_every_model
    needs_sizes: Callable[[Plan], bool] = _never
    sized: Callable[[Any, tuple[Usage, ...], Plan, int], Plan] | None = None
    fallback: Execution | None = None


def executed_gmacs(
    execution: Execution, model: Any, usage: tuple[Usage, ...], plan: Plan, *, devices: int = 1
) -> float:
    """Multiply-adds that a program runs for a batch that devices share evenly, in units of 1e9.

    Args:
        execution: of the program.
        model: that is run.
        usage: of the whole batch, per stage.
        plan: of the program.
        devices: that share the images.
    """

    def part(index: int) -> tuple[Usage, ...]:
        return jax.tree.map(lambda array: np.split(np.asarray(array), devices, 1)[index], usage)

    return sum(execution.executed_gmacs(model, part(index), plan) for index in range(devices))
