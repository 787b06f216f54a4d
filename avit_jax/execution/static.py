"""Static execution: live work only, in buffers whose sizes are numbers of the program.

Exact, and without a loop or branch that depends on data, which accelerators stop for. Buffers hold
rows of tokens, or the images of a cascade's exits. Their sizes come from live counts of earlier
images; where a batch needs more, `Output.fits` says so and masked execution answers it.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
from jax import Array

from avit_jax.errors import UserError
from avit_jax.execution.execution import Execution, Program, rows_may_move
from avit_jax.execution.image_groups import of_images
from avit_jax.execution.masked import MASKED
from avit_jax.execution.plan import Plan
from avit_jax.execution.row_capacities import row_capacities
from avit_jax.models import functional
from avit_jax.models.functional import Params
from avit_jax.models.image_rows import ALIGN, aligned
from avit_jax.types import Output, Usage


def _program(model: Any, plan: Plan) -> Program:
    def run(params: Params, images: Array, exists: Array) -> Output:
        network = functional.bind(model.build, params)
        rows = _rows(model, plan, len(images))
        return of_images(model.static(network, images, exists, rows))

    return run


def _rows(model: Any, plan: Plan, batch: int) -> tuple[int, ...]:
    """The plan's sizes, no more than there are tokens (and rows between images), or images."""
    found = plan.static_rows
    if found is None:
        raise UserError(
            'execution="static" needs a plan with static_rows, a size for each buffer: run --mode '
            "calibrate, or write --config.inference.static_rows."
        )
    if len(found) != model.static_parts:
        raise UserError(
            f"the plan has {len(found)} static_rows, but this model wants {model.static_parts}: "
            "calibrate again for this model, or set config.inference.static_rows."
        )
    everything = room = batch * model.static_most
    if plan.ragged_attention:
        room = batch * aligned(model.static_most)
        # As many rows as there are tokens mean all of them, wherever images may begin.
        found = tuple(room if rows >= everything else aligned(rows) for rows in found)
    rows = tuple(min(rows, room) for rows in found)
    if not model.tokens_return and any(b > a for a, b in itertools.pairwise(rows)):
        raise UserError(
            f"static_rows of the plan are {list(found)}: they may not rise from one to the next, "
            "because tokens that have halted, or images that have left, do not come back."
        )
    return rows


def _sized(model: Any, usage: tuple[Usage, ...], plan: Plan, batch: int) -> Plan:
    if plan.static_rows is not None:
        return plan
    counts = np.asarray(model.static_work(usage))
    most = model.static_most
    if plan.ragged_attention:
        most, counts = aligned(most), -(-counts // ALIGN) * ALIGN
    rows = row_capacities(counts, batch, most, may_rise=model.tokens_return)
    return dataclasses.replace(plan, static_rows=rows)


def _executed_gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    rows = _rows(model, plan, usage[0].tokens.shape[1])
    return model.with_kernels(plan).static_gmacs(usage, rows)


STATIC = Execution(
    name="static",
    program=_program,
    executed_gmacs=_executed_gmacs,
    exact=True,
    fixed_batch=True,
    offered=lambda model: model.static_parts > 0 and rows_may_move(model),
    sized=_sized,
    needs_sizes=lambda plan: plan.static_rows is None,
    fallback=MASKED,
)
