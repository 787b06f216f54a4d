"""`avit_jax.meet_budgets`: a trained run set to a cost, from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable

from avit_jax.calibration.meet_budgets import dial_run
from avit_jax.checkpoints.operating_points import OperatingPoint
from avit_jax.config import file_of_run
from avit_jax.errors import UserError
from avit_jax.runtime.compilation_cache import use_compilation_cache
from avit_jax.runtime.stores import as_path


def meet_budgets(
    workdir: str | os.PathLike[str], budgets: str | float | Iterable[str | float]
) -> list[OperatingPoint]:
    """Find settings of a trained run that meet budgets; as `--mode calibrate --budget`.

    They are kept in the workdir, and a table of them is printed:
    `load_run(workdir, operating_point=0.7)` is the run at that cost.

    Args:
        workdir: of a finished run, whose training images are tried and evaluation images measured.
        budgets: one or several, such as 0.7 (share of the dense multiply-adds) or "2.9gmacs".

    Returns:
        The points, by rising cost; a curve of others comes with those that were asked for.

    Raises:
        UserError: no run there, or a budget that is none or that the model cannot meet.
    """
    place = as_path(os.path.expanduser(workdir))
    several = [budgets] if isinstance(budgets, str | float | int) else list(budgets)
    if not several:
        raise UserError("there is no budget: write a share of the dense multiply-adds, as 0.7.")
    use_compilation_cache()
    return dial_run(file_of_run.get_config(str(place)), place, [str(one) for one in several])
