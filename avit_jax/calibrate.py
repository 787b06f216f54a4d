"""`--mode calibrate`: static sizes of the compacted program for one model on one machine.

Sizes change speed, never answers, so they are chosen by measuring: a few candidates, raced on
calibration images with the trained weights. The budget of static execution is what a share of those
images needs in every layer. They come from the evaluation split, on which the budget's accuracy is
then measured: a little optimistic.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax import flops, report
from avit_jax.benchmark.race import race, speedup
from avit_jax.data.augment import eval_image
from avit_jax.data.example import BadExample, read_example
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.evaluate import evaluate, make_predictor_step
from avit_jax.experiment import Experiment
from avit_jax.inference.plan import Plan, default_plan, ladder
from avit_jax.inference.plans import save_plan, situation
from avit_jax.models.module import Params
from avit_jax.restore import chosen_weights
from avit_jax.types import Usage
from avit_jax.writer import columns, table

logger = logging.getLogger(__name__)

BATCHES = 4  # of calibration images
TURNS = 7
COVERED = 0.95  # share of the images whose live tokens fit into the static budget of a layer


def calibrate_run(config: ConfigDict, workdir: Path) -> Plan:
    """Choose a plan for `config.inference.batch_size` and store it as `workdir/plans.json`.

    Raises:
        UserError: there is nothing to calibrate, or batch and devices do not fit.
    """
    refuse_unless_halting(config, "calibrate")
    experiment = Experiment(config, workdir)
    model, mesh = experiment.model, experiment.mesh
    params = chosen_weights(config, workdir, model, mesh).params
    batch_size = config.inference.batch_size
    chosen = calibration_images(experiment, BATCHES * batch_size)
    images = [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    plans = candidates(model.shape.num_tokens, max(1, batch_size // mesh.size))
    plan, record, usage = fastest(model, params, images, plans, batch_size, mesh)
    plan = dataclasses.replace(plan, capacities=capacities(usage, model.shape.num_prefix_tokens))
    record["budget"] = budget_report(experiment, params, plan, usage)
    file = save_plan(workdir, situation(model.shape, batch_size), plan, record)
    _print(plan, record, usage, file)
    return plan


def refuse_unless_halting(config: ConfigDict, mode: str) -> None:
    """Both measuring modes race executions that skip tokens, in one process.

    Raises:
        UserError: the method skips nothing, or there are several processes.
    """
    if not hasattr(configs.make_model(config).settings, "eps"):
        raise UserError(
            f"--mode {mode} races executions that skip tokens, and {config.model.name} skips none: "
            "write the config of an adaptive model."
        )
    if jax.process_count() > 1:
        raise UserError(
            f"--mode {mode} runs in one process, and there are {jax.process_count()}: "
            "start it on one machine alone."
        )


def calibration_images(experiment: Experiment, count: int) -> np.ndarray:
    """Normalised evaluation images, evenly spaced over the split, which may be sorted by class."""
    source, size = experiment.eval_source, experiment.model.shape.image_size
    images = []
    for index in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int):
        try:
            encoded = read_example(source, int(index)).image
            images.append(eval_image(encoded, size=size, augment=experiment.augment))
        except BadExample as error:
            logger.warning("%s %s; calibration does without it", source.describe(int(index)), error)
    if not images:
        raise UserError(f"{source.name} has no readable image: choose another split.")
    return np.asarray(normalise(np.stack(images)))


def candidates(num_tokens: int, batch_size: int) -> dict[str, Plan]:
    """Plans worth a try around the default: groups, attention groups, finer and coarser sizes."""
    base = default_plan(num_tokens, batch_size)
    block = base.row_sizes[-1]
    plans = {
        "default": base,
        "small groups": dataclasses.replace(base, images=max(1, base.images // 2)),
        "large groups": dataclasses.replace(base, images=min(batch_size, 2 * base.images)),
        "small attention": dataclasses.replace(
            base, attention_images=max(1, base.attention_images // 2)
        ),
        "small blocks": dataclasses.replace(
            base, row_sizes=ladder(max(16, block // 2), ratio=1.33)
        ),
        "coarse lengths": dataclasses.replace(base, lengths=ladder(num_tokens, ratio=1.5)),
    }
    return {name: plan for name, plan in plans.items() if name == "default" or plan != base}


def fastest(
    model: Any,
    params: Params,
    images: list[np.ndarray],
    plans: dict[str, Plan],
    batch_size: int,
    mesh: Any,
) -> tuple[Plan, dict[str, Any], np.ndarray]:
    """The quickest of some plans, how they did, and the live tokens `[L, images, N]`."""
    programs = {
        name: model.compile(params, batch_size=batch_size, plan=plan, mesh=mesh)
        for name, plan in plans.items()
    }
    first = programs["default"]
    usage = np.concatenate([np.asarray(first(batch).usage.tokens) for batch in images], axis=1)
    # One batch after the other, the same for all: a turn covers all calibration images.
    arguments = [first.put(batch) for batch in images]

    def contender(program: Any) -> Any:
        return lambda: [program.run(*pair).logits for pair in arguments]

    times = race({name: contender(p) for name, p in programs.items()}, turns=TURNS)
    ratios = {name: speedup(times["default"], timing).median for name, timing in times.items()}
    best = max(ratios, key=lambda name: ratios[name])
    record = {"chosen": best, "speed_over_default": ratios, "images": usage.shape[1]}
    return plans[best], record, usage


def capacities(usage: np.ndarray, prefix: int) -> tuple[int, ...]:
    """Tokens per layer that hold all live tokens of a share `COVERED` of the images.

    Args:
        usage: `[L, images, N]` live tokens.
        prefix: tokens that always have a place.
    """
    needed = np.quantile(usage.sum(-1), COVERED, axis=1, method="higher")
    # Tokens that are gone do not come back, so a layer needs no more than the one before.
    return tuple(int(max(n, prefix)) for n in np.minimum.accumulate(needed))


def budget_report(
    experiment: Experiment, params: Params, plan: Plan, usage: np.ndarray
) -> dict[str, Any]:
    """What the static budget costs in accuracy on the evaluation split, and whom it affects."""
    model = experiment.model
    exact = report.evaluate_as(experiment, params, "masked")
    step = make_predictor_step(
        model,
        params,
        experiment.mesh,
        batch_size=experiment.config.eval.batch_size,
        execution="budget",
        plan=plan,
    )
    batches = experiment.eval_batches()
    budget = evaluate(step, params, batches, experiment.mesh, model=model)
    return {
        "capacities": list(plan.capacities or ()),
        "top1": budget["top1"],
        "top1_exact": exact["top1"],
        "images_affected": budget["dropped_images"],
        "gmacs": budget_gmacs(model, plan),
        "gmacs_exact": float(flops.inference_gmacs(model.shape, Usage(tokens=usage)).mean()),
    }


def budget_gmacs(model: Any, plan: Plan) -> float:
    """Multiply-adds that every image costs under a static budget, in 1e9."""
    slots = np.arange(model.shape.num_tokens) < np.asarray(plan.capacities)[:, None]
    return float(flops.inference_gmacs(model.shape, Usage(tokens=slots[:, None, :]))[0])


def _print(plan: Plan, record: dict[str, Any], usage: np.ndarray, file: Path) -> None:
    if jax.process_index() != 0:
        return
    ratios = record["speed_over_default"]
    print(columns(["plan", "speed / default"], [(n, f"{r:.3f}") for n, r in ratios.items()]))
    budget = record["budget"]
    change = 100 * (budget["top1"] - budget["top1_exact"])
    rows = [
        ("chosen", record["chosen"]),
        ("images per group", str(plan.images)),
        ("blocks of rows", ", ".join(map(str, plan.row_sizes))),
        ("images per attention", str(plan.attention_images)),
        ("lengths of attention", ", ".join(map(str, plan.lengths))),
        ("live tokens per layer, mean", ", ".join(f"{n:.0f}" for n in usage.sum(-1).mean(1))),
        ("static budget per layer", ", ".join(map(str, plan.capacities or ()))),
        ("images that the budget affects", f"{budget['images_affected']:.1%}"),
        ("top-1 under the budget", f"{budget['top1']:.2%} ({change:+.2f} points)"),
        ("GMACs under the budget", f"{budget['gmacs']:.4g}; exact {budget['gmacs_exact']:.4g}"),
        ("stored as", str(file)),
    ]
    print(table(rows, "Calibration"))
