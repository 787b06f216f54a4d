"""The programs of one case in one process: what is timed, and what is said of them afterwards."""

from __future__ import annotations

from typing import Any

import jax

from avit_jax.benchmark.answers import Answers, compare, program_answers
from avit_jax.benchmark.cases import Case
from avit_jax.benchmark.contenders import Contenders, programs_that_fit
from avit_jax.benchmark.measurements import program_figures
from avit_jax.benchmark.room import Room
from avit_jax.config.inference import Benchmark
from avit_jax.execution.plan import Plan
from avit_jax.types import Usage


class Programs:
    """This package's programs for a case, compiled for the devices of this process.

    Args:
        case: to race in.
        plan: static sizes for one device of this process.
        chosen: what to race.

    Attributes:
        contenders: functions to time, by name; several are dense.
        left_out: names of what found no memory.
    """

    def __init__(self, case: Case, plan: Plan, chosen: Benchmark):
        room = Room()
        self._case = case
        self._programs, contenders = programs_that_fit(case, plan, chosen, room)
        self.contenders: Contenders = contenders
        self.left_out = room.left_out

    def figures(self, name: str, masked: Answers) -> dict[str, Any]:
        """What a program costs and answers beside masked execution, for machines."""
        program, case = self._programs[name], self._case
        before = program.batches, program.overflows
        answers = program_answers(case, program)
        figures = program_figures(program, case.model, of_images(answers.usage, case.timed))
        if program.execution.fallback is not None:  # other batches than the one that was timed
            batches, overflows = program.batches - before[0], program.overflows - before[1]
            figures["batches_without_room"] = overflows / batches
            figures["static_rows"] = program.plan.static_rows
        return figures | compare(case, answers, masked, exact=program.execution.exact)


def of_images(usage: tuple[Usage, ...], images: Any) -> tuple[Usage, ...]:
    """The usage of some images, by their indices."""
    return jax.tree.map(lambda array: array[:, images], usage)
