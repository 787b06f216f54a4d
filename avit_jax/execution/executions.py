"""The list of executions: a new one is a file of this folder and an entry here."""

from __future__ import annotations

import functools
import logging
from typing import Any

from avit_jax.errors import UserError
from avit_jax.execution.capped import CAPPED
from avit_jax.execution.compact import COMPACT
from avit_jax.execution.dense import DENSE
from avit_jax.execution.execution import Execution
from avit_jax.execution.masked import MASKED
from avit_jax.execution.static import STATIC

logger = logging.getLogger(__name__)

EXECUTIONS = {one.name: one for one in (DENSE, MASKED, COMPACT, STATIC, CAPPED)}
_FORMER = {"budget": "capped"}


@functools.cache  # one warning is enough
def current_name(name: str) -> str:
    """The name that an execution has today; a warning says where it had another one."""
    if name not in _FORMER:
        return name
    logger.warning('execution "%s" is called "%s" now: write that.', name, _FORMER[name])
    return _FORMER[name]


def fastest(model: Any, platform: str) -> Execution:
    """The exact execution that is the fastest on a platform, as far as can be said unmeasured.

    Loops whose trip counts are data keep caches warm on a CPU, and make an accelerator wait. On a
    TPU rows that do not lie as its kernels want them would have to move to and from images around
    every attention, which costs more than halting saves. Of a cascade whole images move, and only
    between its networks.
    """
    if not COMPACT.offered(model):
        return MASKED
    if platform == "cpu":
        return COMPACT
    plan = model.default_plan(1, platform=platform)
    moves_well = platform != "tpu" or plan.ragged_attention or model.static_most == 1
    pays = STATIC.offered(model) and moves_well
    return STATIC if pays else MASKED


def find(execution: str | Execution) -> Execution:
    """An execution by its name; one that is given as such is returned.

    Raises:
        UserError: there is none of this name.
    """
    if isinstance(execution, Execution):
        return execution
    name = current_name(execution)
    if name not in EXECUTIONS:
        raise UserError(
            f"execution {execution!r} is unknown: compile() takes {', '.join(EXECUTIONS)}."
        )
    return EXECUTIONS[name]
