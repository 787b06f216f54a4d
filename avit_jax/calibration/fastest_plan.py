"""`--mode calibrate`: the fastest exact inference of one model on one machine.

Static sizes of the compacted program change speed, never answers, so they are chosen by measuring:
a few candidates, raced on calibration images with the trained weights. Masked execution gives the
same answers, too, and may win where models are very small. Dense execution runs along to show what
halting gains; nothing halts in it, so its answers are others.

The places of capped execution are what a share of those images needs in every layer. They come from
the evaluation split, on which its accuracy is then measured: a little optimistic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax.checkpoints.stored_plans import save_plan, settings_in_use, situation
from avit_jax.checkpoints.workdir import as_rows
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.evaluation import report
from avit_jax.evaluation.evaluate import evaluate, make_predictor_step
from avit_jax.execution.candidates import capacities
from avit_jax.execution.capped import CAPPED, image_gmacs
from avit_jax.execution.compact import COMPACT
from avit_jax.execution.dense import DENSE
from avit_jax.execution.execution import Execution
from avit_jax.execution.masked import MASKED
from avit_jax.execution.plan import Plan
from avit_jax.execution.predictor import Predictor
from avit_jax.execution.static import STATIC
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import platform_of, whole_devices
from avit_jax.runtime.locks import only_writer
from avit_jax.runtime.paired_timing import Timing, race, speedup
from avit_jax.runtime.processes import refuse_several_processes
from avit_jax.runtime.tables import columns, table
from avit_jax.types import Usage

BATCHES = 4  # of calibration images
TURNS = 7


def calibrate_run(config: ConfigDict, workdir: Path) -> Plan:
    """Choose plan and execution for `config.inference.batch_size`; store `workdir/plans.json`.

    Raises:
        UserError: there is nothing to calibrate, batch and devices do not fit, or another run is
            writing in the workdir.
    """
    experiment = Experiment(config, workdir)
    refuse_unless_adaptive(experiment, "calibrate")
    with only_writer(workdir, "calibrate"):
        return _calibrated(experiment)


def _calibrated(experiment: Experiment) -> Plan:
    model, mesh = experiment.model, experiment.mesh
    params = experiment.weights().params
    batch_size = experiment.settings.inference.batch_size
    chosen = np.asarray(normalise(experiment.measured_images(BATCHES * batch_size)[0]))
    images = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    plan, record, usage = fastest(model, params, images, batch_size, mesh)
    record |= {"images": len(chosen), "settings": settings_in_use(model)}
    if CAPPED.offered(model):
        found = capacities(usage[0].tokens, model.shape.num_prefix_tokens)
        plan = dataclasses.replace(plan, capacities=found)
        record["capped"] = capped_report(experiment, params, plan, usage)
    file = save_plan(experiment.workdir, situation(model.shape, batch_size), plan, record)
    held = "images per exit" if model.static_most == 1 else "rows per layer"
    _print(plan, record, usage[0].tokens, file, changes=experiment.changes, held=held)
    return plan


def refuse_unless_adaptive(experiment: Experiment, mode: str) -> None:
    """Both measuring modes race executions that skip tokens, in one process.

    Raises:
        UserError: the method skips nothing, or there are several processes.
    """
    if not experiment.model.adaptive:
        raise UserError(
            f"--mode {mode} races executions that skip tokens, and {experiment.name} "
            "skips none: write the config of an adaptive model."
        )
    refuse_several_processes(mode)


def fastest(
    model: Model, params: Params, images: list[np.ndarray], batch_size: int, mesh: Mesh
) -> tuple[Plan, dict[str, Any], tuple[Usage, ...]]:
    """The quickest of some plans, how all did, and what ran for the images, per stage."""
    local, platform = max(1, batch_size // mesh.size), platform_of(mesh)
    default = model.default_plan(local, platform=platform)

    def compiled(execution: Execution, plan: Plan) -> Predictor:
        return model.compile(
            params, batch_size=batch_size, execution=execution, plan=plan, mesh=mesh
        )

    programs = {one.name: compiled(one, default) for one in (MASKED, DENSE)}
    found = [programs[MASKED.name](batch).usage for batch in images]
    usage = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *found)
    if STATIC.offered(model):
        default = STATIC.sized(model, usage, default, local)
        programs[STATIC.name] = compiled(STATIC, default)
    plans = {"default": default}
    # Elsewhere compact execution only waits, and compiles without end.
    if platform == "cpu" and COMPACT.offered(model):
        candidates = model.candidate_plans(local)
        rows = default.static_rows
        plans = {n: dataclasses.replace(p, static_rows=rows) for n, p in candidates.items()}
        programs |= {name: compiled(COMPACT, plan) for name, plan in plans.items()}
    # One batch after the other, the same for all: a turn covers all calibration images.
    arguments = [programs[MASKED.name].put(batch) for batch in images]

    def contender(program: Predictor) -> Callable[[], list[Array]]:
        return lambda: [program.run(*pair).logits for pair in arguments]

    times = race({name: contender(p) for name, p in programs.items()}, turns=TURNS)
    return (*choose(plans, times), usage)


def choose(plans: dict[str, Plan], times: dict[str, Timing]) -> tuple[Plan, dict[str, Any]]:
    """The quickest plan, and a record with the quickest exact execution.

    Args:
        plans: of compact execution, raced where they are among `times`; "default" is one of them.
        times: of plans and of executions, "masked" and "dense" among them.
    """
    raced = [name for name in plans if name in times]
    over_default = {name: speedup(times["default"], times[name]).median for name in raced}
    best = max(over_default, key=lambda name: over_default[name], default="default")
    exact = {name: times[name] for name in (MASKED.name, STATIC.name) if name in times}
    if raced:
        exact[COMPACT.name] = times[best]
    over_dense = {name: speedup(times["dense"], one).median for name, one in exact.items()}
    record = {
        "chosen": best,
        "execution": max(over_dense, key=lambda name: over_dense[name]),
        "speed_over_default": over_default,
        "speed_over_dense": over_dense,
    }
    return plans[best], record


def capped_report(
    experiment: Experiment, params: Params, plan: Plan, usage: tuple[Usage, ...]
) -> dict[str, Any]:
    """What fixed numbers of places cost in accuracy on the evaluation split, and whom."""
    model = experiment.model
    exact = report.evaluate_as(experiment, params, "masked")
    step = make_predictor_step(
        model,
        params,
        experiment.mesh,
        batch_size=whole_devices(experiment.settings.eval.batch_size),
        execution="capped",
        plan=plan,
    )
    batches = experiment.eval_batches()
    found = evaluate(step, params, batches, experiment.mesh, model=model)
    return {
        "capacities": list(plan.capacities or ()),
        "top1": found["top1"],
        "top1_exact": exact["top1"],
        "images_affected": found["dropped_images"],
        "gmacs": image_gmacs(model, plan),
        "gmacs_exact": float(model.inference_gmacs(usage).mean()),
    }


def _print(
    plan: Plan,
    record: dict[str, Any],
    tokens: np.ndarray,
    file: Path,
    *,
    changes: dict[str, str],
    held: str,
) -> None:
    ratios = record["speed_over_default"]
    print(columns(["plan", "speed / default"], [(n, f"{r:.3f}") for n, r in ratios.items()]))
    rows = [
        *as_rows(changes),
        ("chosen plan", record["chosen"]),
        ("images per group", str(plan.images)),
        ("blocks of rows", ", ".join(map(str, plan.row_sizes))),
        ("images per attention", str(plan.attention_images)),
        ("lengths of attention", ", ".join(map(str, plan.lengths))),
        *(
            (f"speed of {name} over dense (halting off)", f"{ratio:.2f}")
            for name, ratio in record["speed_over_dense"].items()
        ),
        ("fastest exact execution", record["execution"]),
        ("live tokens per layer, mean", ", ".join(f"{n:.0f}" for n in tokens.sum(-1).mean(1))),
    ]
    if plan.static_rows is not None:
        rows.append((f"{held}, static", ", ".join(map(str, plan.static_rows))))
    if "capped" in record:
        rows += _capped_rows(record["capped"])
    rows.append(("stored as", str(file)))
    print(table(rows, "Calibration"))


def _capped_rows(capped: dict[str, Any]) -> list[tuple[str, str]]:
    change = 100 * (capped["top1"] - capped["top1_exact"])
    return [
        ("places per layer, capped", ", ".join(map(str, capped["capacities"]))),
        ("images that lose tokens, capped", f"{capped['images_affected']:.1%}"),
        ("top-1, capped", f"{capped['top1']:.2%} ({change:+.2f} points)"),
        (
            "GMACs, capped",
            f"{capped['gmacs']:.4g}; exact {capped['gmacs_exact']:.4g} (both without what nobody "
            "reads in the last block, which evaluation counts)",
        ),
    ]
