"""`--mode benchmark`: dense, masked, compact, static and capped executions against each other.

All take turns in one process on the same images. The baseline is the best dense program of several
group sizes. The *ideal* speed-up is that of the multiply-adds: best dense over live tokens, both
with a last block that computes prefix tokens only; the *share* of it is how much of it arrives.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.benchmark import peers
from avit_jax.benchmark.answers import compare, masked_answers, program_answers
from avit_jax.benchmark.cases import Case, cases
from avit_jax.benchmark.measurements import device_peak_mb, program_figures, speed_figures
from avit_jax.benchmark.plot import plot
from avit_jax.benchmark.tables import print_case
from avit_jax.calibration.fastest_plan import refuse_unless_adaptive
from avit_jax.config.inference import Benchmark
from avit_jax.execution.candidates import capacities
from avit_jax.execution.dense import DENSE
from avit_jax.execution.executions import find
from avit_jax.execution.plan import Plan
from avit_jax.execution.predictor import Predictor
from avit_jax.experiment import Experiment
from avit_jax.models import costs
from avit_jax.runtime.environment import environment
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.paired_timing import race
from avit_jax.types import Usage

DENSE_GROUPS = (2, 4, 8)  # images that dense candidates treat together


def benchmark_run(config: ConfigDict, workdir: Path, *, output: Path | None = None) -> Path:
    """Race all cases of `config.benchmark`; print tables, write `benchmark.json` and a plot.

    Args:
        config: of the experiment; only profile "real" needs its data and a trained run.
        workdir: of the run.
        output: folder for the results; `workdir` if unset.

    Returns:
        The JSON file.
    """
    experiment = Experiment(config, workdir)
    refuse_unless_adaptive(experiment, "benchmark")
    folder = output or workdir
    settings = experiment.settings.benchmark
    surroundings = environment(("jax", "flax", *peers.packages(settings.peers or ())))
    print("\n".join(f"{name}: {value}" for name, value in surroundings.items()), flush=True)
    results = []
    for case in cases(experiment):
        results.append(run_case(case, settings))
        print_case(results[-1])
        # Written after every case, so that a benchmark that is stopped keeps what it has.
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "benchmark.json"
        write_json_atomic(file, {"environment": surroundings, "cases": results})
    picture = plot(results, folder / "benchmark.png")
    print(f"written: {file}, {picture}")
    return file


def run_case(case: Case, settings: Benchmark) -> dict[str, Any]:
    """Race one case and return its figures, for machines."""
    batch_size, shape = len(case.timed), case.model.shape
    masked = masked_answers(case)
    usage = _of_images(masked.usage, case.timed)
    plan = case.plan
    if case.model.has_capped:
        found = plan.capacities or capacities(masked.usage[0].tokens, shape.num_prefix_tokens)
        plan = dataclasses.replace(plan, capacities=found)
    programs = dict(_programs(case, plan, settings.executions))
    contenders = {name: _ready(program, case.batch) for name, program in programs.items()}
    for kind in settings.peers or ():
        contenders[f"torch {kind}"] = peers.peer(kind, shape, case.batch)
    times = race(contenders, turns=settings.turns)
    dense = [name for name in times if name.startswith("dense of ")]
    baseline = min(dense, key=lambda name: times[name].median())
    stages = case.model.stages
    needed = float(costs.stages_gmacs(stages, usage, costs.inference_gmacs).mean())
    everything = sum(map(costs.dense_inference_gmacs, stages))
    ideal = everything / needed
    executions = {}
    for name, timing in times.items():
        if name in dense and name != baseline:
            continue
        figures = speed_figures(timing, times[baseline], batch_size=batch_size, ideal=ideal)
        if name in programs:
            program = programs[name]
            before = program.batches, program.overflows
            answers = program_answers(case, program)
            ran = _of_images(answers.usage, case.timed)
            figures |= program_figures(program, case.model, ran)
            if program.execution.fallback is not None:  # other batches than the one that was timed
                batches, overflows = program.batches - before[0], program.overflows - before[1]
                figures["batches_without_room"] = overflows / batches
                figures["static_rows"] = program.plan.static_rows
            figures |= compare(case, answers, masked, exact=program.execution.exact)
        else:
            figures["gmacs_executed"] = costs.dense_gmacs(shape)  # a peer is one network
        executions[name.split(" of ")[0]] = figures
    return {
        "profile": case.name,
        "batch_size": batch_size,
        "image_size": shape.image_size,
        "embed_dim": shape.embed_dim,
        "dtype": shape.dtype,
        "turns": settings.turns,
        "gmacs_dense": everything,
        "gmacs_live": needed,
        "ideal_speedup": ideal,
        "baseline": baseline,
        "plan": plan.to_dict(),
        "images_compared": len(case.images),
        "top1_masked": None if case.labels is None else masked.top1(case.labels),
        "device_peak_mb": device_peak_mb(),
        "executions": executions,
    }


def _of_images(usage: tuple[Usage, ...], images: np.ndarray) -> tuple[Usage, ...]:
    return jax.tree.map(lambda array: array[:, images], usage)


def _programs(case: Case, plan: Plan, executions: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    batch_size = len(case.timed)
    local = max(1, batch_size // jax.device_count())
    # A single image at a time pays only where there is no more than one.
    groups = {*DENSE_GROUPS, plan.dense_images, 2 * plan.dense_images}
    groups = {group for group in groups if group <= local} or {1}
    fused = (False, True) if plan.fused_attention else (False,)
    for group, kernel in itertools.product(sorted(groups), fused):
        changed = dataclasses.replace(plan, dense_images=group, fused_attention=kernel)
        program = case.model.compile(
            case.params, batch_size=batch_size, execution=DENSE, plan=changed
        )
        yield f"dense of {group}{', fused attention' * kernel}", program
    for execution in map(find, executions):
        if not execution.offered(case.model):
            print(f"{execution.name} left out: this method has none", flush=True)
        elif execution is not DENSE:
            yield (
                execution.name,
                case.model.compile(
                    case.params, batch_size=batch_size, execution=execution, plan=plan
                ),
            )


def _ready(program: Predictor, images: np.ndarray) -> Callable[[], Any]:
    arguments = program.put(images)
    return lambda: program.run(*arguments).logits
