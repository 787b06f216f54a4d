"""`--mode calibrate --budget 0.8`: a setting of a trained model that meets a budget.

The setting is searched on training images, or on those of `config.data.calibration_split`, without
augmentation; what it costs and answers on the evaluation split, which it has not seen, is then
measured. Labels are read only where a method fits its dial to what its exits say. A curve over
budgets comes with it, and all its points can be put in force by name (`operating_points.py`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from avit_jax.calibration.budget_curve import comparison, draw, exit_rows, rows
from avit_jax.calibration.dialled_model import DialledModel
from avit_jax.checkpoints.budgets import Budget, parse_budget
from avit_jax.checkpoints.operating_points import LEARNT, OperatingPoint, measured_with, save_points
from avit_jax.checkpoints.workdir import as_rows
from avit_jax.config.data import Data
from avit_jax.errors import UserError
from avit_jax.evaluation import report
from avit_jax.experiment import Experiment
from avit_jax.runtime.locks import only_writer
from avit_jax.runtime.processes import refuse_several_processes
from avit_jax.runtime.tables import columns

logger = logging.getLogger(__name__)

CURVE = tuple(Budget(share, "share") for share in (0.5, 0.6, 0.7, 0.8, 0.9))
CLOSE = 0.02  # of the budget; a miss beyond this is said
PICTURE = "budget_curve.png"


def dial_run(config: ConfigDict, workdir: Path, budgets: Sequence[str]) -> list[OperatingPoint]:
    """Find and store operating points for budgets, and the curve around them.

    Args:
        config: of the run.
        workdir: of the run; `operating_points.json` and `budget_curve.png` go there.
        budgets: "0.8" (share of the dense GMACs), "2.9gmacs" (per image) or "5ms" (per batch of
            `config.inference.batch_size`, compacted).

    Returns:
        The points, those of the curve among them, by rising cost.

    Raises:
        UserError: a budget that is none or cannot be met, a method without a dial, several
            processes, no weights, or another run that is writing in the workdir.
    """
    asked = [parse_budget(text) for text in budgets]
    experiment = Experiment(config, workdir)
    _refuse_what_has_no_dial(experiment)
    with only_writer(workdir, "calibrate"):
        return _dialled(experiment, asked)


def _dialled(experiment: Experiment, asked: Sequence[Budget]) -> list[OperatingPoint]:
    config, workdir, data = experiment.config, experiment.workdir, experiment.settings.data
    params = experiment.weights().params
    measured = measured_with(config, workdir)  # of the checkpoint just read, which was sound
    dialled = DialledModel(experiment, params)
    wanted = {budget.name: budget for budget in (*asked, *dialled.reachable(CURVE))}
    learnt = dialled.point(LEARNT, 0.0, None, None)
    points = sorted([learnt, *_points(dialled, wanted)], key=lambda one: one.gmacs_calibration)
    untimed = {name: budget for name, budget in wanted.items() if budget.unit != "ms"}
    families = {dialled.family: points}
    for family, other in dialled.others().items():
        families[family] = _points(other, untimed)
    exits = dialled.exits()
    dense = report.evaluate_as(experiment, params, "dense")
    record = {
        "calibration": f"{len(dialled.selection)} images of {dialled.selection.title}",
        "evaluation": f"{dense['images']} images of {data.eval_split}",
        "evaluation_held_out": not data.tries_what_it_evaluates,
        "top1_dense": dense["top1"],
    }
    for family, others in list(families.items())[1:]:
        record[family] = [dataclasses.asdict(point) for point in others]
    if exits is not None:
        record["exits"] = dict(zip(("gmacs", "top1"), exits, strict=True))
    file = save_points(workdir, measured, points, **record)
    picture = draw(
        families,
        exits=exits,
        top1_dense=dense["top1"],
        images=dense["images"],
        file=workdir / PICTURE,
    )
    for name, value in as_rows(experiment.changes):
        print(f"{name}: {value}")
    print(f"found on {record['calibration']}; top-1 and held-out cost: {record['evaluation']}")
    _name_same_images(data)
    print(columns(*rows(points, top1_dense=dense["top1"])), flush=True)
    if len(families) > 1:
        print(f"\n{columns(*comparison(families))}", flush=True)
    if exits is not None:
        print(f"\n{columns(*exit_rows(*exits))}", flush=True)
    print(f"written: {file}, {picture}; use one with --operating_point {asked[0].name}")
    _name_misses(points)
    return points


def _points(dialled: DialledModel, wanted: dict[str, Budget]) -> list[OperatingPoint]:
    """What meets the budgets, by rising cost."""
    found = [
        dialled.point(name, position, wanted[name], milliseconds)
        for name, (position, milliseconds) in dialled.positions(list(wanted.values())).items()
    ]
    return sorted(found, key=lambda point: point.gmacs_calibration)


def _refuse_what_has_no_dial(experiment: Experiment) -> None:
    name = experiment.name
    if experiment.model.dial() is None:
        raise UserError(
            f"{name} costs the same for every image and has nothing to turn, so no --budget can be "
            "met: write the config of an adaptive model."
        )
    refuse_several_processes("calibrate")


def _name_same_images(data: Data) -> None:
    if data.tries_what_it_evaluates:
        logger.warning(
            "the settings were found on images of %s, the very ones that top-1 and cost are told "
            "of (%s), so both flatter: name another split with --config.data.calibration_split.",
            data.tried_on,
            data.eval_split,
        )


def _name_misses(points: Sequence[OperatingPoint]) -> None:
    for point in points:
        if point.target_gmacs is None:
            continue
        miss = point.gmacs_calibration / point.target_gmacs - 1
        if abs(miss) > CLOSE:
            logger.warning(
                "budget %s is missed by %+.1f %%: the cost moves in steps that are wider on so few "
                "images",
                point.name,
                100 * miss,
            )
