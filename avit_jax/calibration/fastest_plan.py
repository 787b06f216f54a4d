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

import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax.checkpoints.stored_plans import save_plan, situation
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.evaluation import report
from avit_jax.evaluation.evaluate import evaluate, make_predictor_step
from avit_jax.execution.candidates import capacities
from avit_jax.execution.capped import image_gmacs
from avit_jax.execution.plan import Plan
from avit_jax.execution.predictor import Predictor
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.models.functional import Params
from avit_jax.runtime.paired_timing import Timing, race, speedup
from avit_jax.runtime.processes import refuse_several_processes
from avit_jax.runtime.tables import columns, table
from avit_jax.types import Usage

BATCHES = 4  # of calibration images
TURNS = 7


def calibrate_run(config: ConfigDict, workdir: Path) -> Plan:
    """Choose plan and execution for `config.inference.batch_size`; store `workdir/plans.json`.

    Raises:
        UserError: there is nothing to calibrate, or batch and devices do not fit.
    """
    experiment = Experiment(config, workdir)
    refuse_unless_adaptive(experiment, "calibrate")
    model, mesh = experiment.model, experiment.mesh
    params = experiment.weights().params
    batch_size = experiment.settings.inference.batch_size
    chosen = np.asarray(normalise(experiment.measured_images(BATCHES * batch_size)[0]))
    images = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    plans = model.candidate_plans(max(1, batch_size // mesh.size))
    plan, record, usage = fastest(model, params, images, plans, batch_size, mesh)
    record["images"] = len(chosen)
    if model.has_capped:
        found = capacities(usage, model.shape.num_prefix_tokens)
        plan = dataclasses.replace(plan, capacities=found)
        record["capped"] = capped_report(experiment, params, plan, usage)
    file = save_plan(workdir, situation(model.shape, batch_size), plan, record)
    _print(plan, record, usage, file)
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
    model: Model,
    params: Params,
    images: list[np.ndarray],
    plans: dict[str, Plan],
    batch_size: int,
    mesh: Mesh,
) -> tuple[Plan, dict[str, Any], np.ndarray]:
    """The quickest of some plans, how all did, and the live tokens `[L, images, N]`."""
    programs = {
        name: model.compile(params, batch_size=batch_size, plan=plan, mesh=mesh)
        for name, plan in plans.items()
    } | {
        name: model.compile(
            params, batch_size=batch_size, execution=name, plan=plans["default"], mesh=mesh
        )
        for name in ("masked", "dense")
    }
    first = programs["default"]
    usage = np.concatenate([np.asarray(first(batch).usage[0].tokens) for batch in images], axis=1)
    # One batch after the other, the same for all: a turn covers all calibration images.
    arguments = [first.put(batch) for batch in images]

    def contender(program: Predictor) -> Callable[[], list[Array]]:
        return lambda: [program.run(*pair).logits for pair in arguments]

    times = race({name: contender(p) for name, p in programs.items()}, turns=TURNS)
    return (*choose(plans, times), usage)


def choose(plans: dict[str, Plan], times: dict[str, Timing]) -> tuple[Plan, dict[str, Any]]:
    """The quickest plan, and a record with the quickest exact execution.

    Args:
        plans: raced, "default" among them.
        times: of all plans, of "masked" and of "dense".
    """
    ratios = {name: speedup(times["default"], times[name]).median for name in plans}
    best = max(ratios, key=lambda name: ratios[name])
    masked_wins = speedup(times[best], times["masked"]).median > 1.0
    record = {
        "chosen": best,
        "execution": "masked" if masked_wins else "compact",
        "speed_over_default": ratios,
        "speed_over_dense": {
            "compact": speedup(times["dense"], times[best]).median,
            "masked": speedup(times["dense"], times["masked"]).median,
        },
    }
    return plans[best], record


def capped_report(
    experiment: Experiment, params: Params, plan: Plan, usage: np.ndarray
) -> dict[str, Any]:
    """What fixed numbers of places cost in accuracy on the evaluation split, and whom."""
    model = experiment.model
    exact = report.evaluate_as(experiment, params, "masked")
    step = make_predictor_step(
        model,
        params,
        experiment.mesh,
        batch_size=experiment.settings.eval.batch_size,
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
        "gmacs": image_gmacs(model.shape, plan),
        "gmacs_exact": float(costs.inference_gmacs(model.shape, Usage(tokens=usage)).mean()),
    }


def _print(plan: Plan, record: dict[str, Any], usage: np.ndarray, file: Path) -> None:
    ratios = record["speed_over_default"]
    print(columns(["plan", "speed / default"], [(n, f"{r:.3f}") for n, r in ratios.items()]))
    rows = [
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
        ("live tokens per layer, mean", ", ".join(f"{n:.0f}" for n in usage.sum(-1).mean(1))),
    ]
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
        ("GMACs, capped", f"{capped['gmacs']:.4g}; exact {capped['gmacs_exact']:.4g}"),
    ]
