"""`--mode benchmark`: dense, masked, compact, static and capped executions against each other.

All take turns in one process on the same images, and training steps likewise where they are asked
for. The baseline is the best dense program of several group sizes. The *ideal* speed-up is that of
the multiply-adds: best dense over live tokens, both with a last block that computes prefix tokens
only; the *share* of it is how much of it arrives. On an accelerator several calls are begun in a
row and waited for once, so that times are the device's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.benchmark import peers, profiles, scale
from avit_jax.benchmark.answers import compare, masked_answers, program_answers
from avit_jax.benchmark.cases import Case, cases
from avit_jax.benchmark.contenders import peers_that_fit, programs_that_fit
from avit_jax.benchmark.measurements import (
    device_peak_mb,
    peak_figures,
    program_figures,
    speed_figures,
)
from avit_jax.benchmark.plot import plot
from avit_jax.benchmark.room import NoRoom, Room
from avit_jax.benchmark.tables import print_case
from avit_jax.benchmark.training_race import train_figures
from avit_jax.calibration.fastest_plan import refuse_unless_adaptive
from avit_jax.checkpoints.workdir import as_rows
from avit_jax.config import Settings
from avit_jax.config.inference import Benchmark
from avit_jax.execution.candidates import capacities
from avit_jax.experiment import Experiment
from avit_jax.models import costs
from avit_jax.runtime.environment import environment
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.paired_timing import race
from avit_jax.runtime.tables import table
from avit_jax.types import Usage


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
    settings = scale.completed(experiment.settings.benchmark, jax.default_backend())
    surroundings = environment(("jax", "flax", *peers.packages(settings.peers or ())))
    # Other profiles take no weights, so that nothing can differ from how they were trained.
    names = settings.profiles or profiles.sensible(experiment.model)
    changes = experiment.changes if "real" in names else {}
    around = [(name, str(value).replace(":", " ")) for name, value in surroundings.items()]
    print(table([*around, *as_rows(changes)], "Benchmark"), flush=True)
    results, room = [], Room()
    file = folder / "benchmark.json"
    for case in cases(experiment, settings):
        name = f"profile {case.name}, batch {len(case.timed)}"
        result = room.attempt(name, lambda case=case: run_case(case, experiment.settings, settings))
        if result is not None:
            results.append(result)
            print_case(result)
        # Written after every case, so that a benchmark that is stopped keeps what it has.
        folder.mkdir(parents=True, exist_ok=True)
        found = {"environment": surroundings, "changes": changes, "cases": results}
        found["out_of_memory"] = room.left_out
        write_json_atomic(file, found)
    picture = plot(results, folder / "benchmark.png")
    print(f"written: {file}, {picture}")
    return file


def run_case(case: Case, settings: Settings, chosen: Benchmark) -> dict[str, Any]:
    """Race one case and return its figures, for machines.

    Args:
        case: to race in.
        settings: of the experiment, for training steps.
        chosen: what to race, every choice made, see `scale.completed`.

    Raises:
        NoRoom: there is no memory for the dense model.
    """
    batch_size, shape = len(case.timed), case.model.shape
    masked = masked_answers(case)
    usage = _of_images(masked.usage, case.timed)
    plan = case.plan
    if case.model.has_capped:
        found = plan.capacities or capacities(masked.usage[0].tokens, shape.num_prefix_tokens)
        plan = dataclasses.replace(plan, capacities=found)
    room = Room()
    programs, contenders = programs_that_fit(case, plan, chosen, room)
    contenders |= peers_that_fit(case, chosen, room)
    times = race(contenders, turns=chosen.turns)
    dense = [name for name in times if name.startswith("dense of ")]
    if not dense:
        raise NoRoom("dense execution, the baseline")
    baseline = min(dense, key=lambda name: times[name].median())
    stages = case.model.stages
    used = float(np.mean(costs.stages_gmacs(stages, usage)))
    needed = float(costs.stages_gmacs(stages, usage, costs.inference_gmacs).mean())
    everything = sum(map(costs.dense_inference_gmacs, stages))
    ideal = everything / needed
    executions = {}
    for name, timing in times.items():
        if name in dense and name != baseline:
            continue
        figures = speed_figures(
            timing, times[baseline], batch_size=batch_size, ideal=ideal, calls=chosen.calls
        )
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
            useful = everything if name == baseline else needed
        else:
            figures["gmacs_executed"] = costs.dense_gmacs(shape)  # a peer is one network
            useful = figures["gmacs_executed"]
        figures |= peak_figures(figures["images_per_second"], useful, shape.dtype)
        executions[name.split(" of ")[0]] = figures
    result = {
        "profile": case.name,
        "batch_size": batch_size,
        "image_size": shape.image_size,
        "embed_dim": shape.embed_dim,
        "dtype": shape.dtype,
        "turns": chosen.turns,
        "calls": chosen.calls,
        "gmacs": used,
        "gmacs_dense": case.model.dense_gmacs(),
        "gmacs_needed": needed,
        "gmacs_dense_needed": everything,
        "ideal_speedup": ideal,
        "baseline": baseline,
        "plan": plan.to_dict(),
        "images_compared": len(case.images),
        "top1_masked": None if case.labels is None else masked.top1(case.labels),
        "device_peak_mb": device_peak_mb(),
        "out_of_memory": room.left_out,
        "executions": executions,
    }
    if chosen.training:
        result["training"] = train_figures(case, usage, settings, chosen)
    return result


def _of_images(usage: tuple[Usage, ...], images: np.ndarray) -> tuple[Usage, ...]:
    return jax.tree.map(lambda array: array[:, images], usage)
