"""`--mode benchmark`: dense, masked, compact, static and capped executions against each other.

All take turns on the same images, and training steps likewise where they are asked for. On a CPU
they do so on one device and, in a process of its own, on one for each core, where peers have
processes of their own, too (`other_process.py`). The baseline is the best dense program of several
group sizes and numbers of devices. The *ideal* speed-up is that of the multiply-adds: best dense
over live tokens, both with a last block that computes prefix tokens only; the *share* of it is how
much of it arrives. On an accelerator several calls are begun in a row and waited for once, so that
times are the device's.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from avit_jax.benchmark import onnx_peers, peers, profiles, scale
from avit_jax.benchmark.answers import masked_answers
from avit_jax.benchmark.cases import Case, cases
from avit_jax.benchmark.contenders import (
    Contenders,
    peer_names,
    peers_on_accelerator,
    require_peer,
)
from avit_jax.benchmark.measurements import device_peak_mb, peak_figures, speed_figures
from avit_jax.benchmark.other_process import OtherProcesses, ProgramsElsewhere
from avit_jax.benchmark.plot import plot
from avit_jax.benchmark.programs import Programs, of_images
from avit_jax.benchmark.room import NoRoom, Room
from avit_jax.benchmark.tables import print_case
from avit_jax.benchmark.training_race import train_figures
from avit_jax.calibration.fastest_plan import refuse_unless_adaptive
from avit_jax.checkpoints.workdir import as_rows
from avit_jax.config import Settings
from avit_jax.config.inference import Benchmark
from avit_jax.execution.candidates import capacities
from avit_jax.execution.capped import CAPPED
from avit_jax.execution.plan import Plan
from avit_jax.experiment import Experiment
from avit_jax.models import costs
from avit_jax.runtime.environment import environment
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.paired_timing import race
from avit_jax.runtime.tables import table


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
    kinds = settings.peers or ()
    for kind in kinds:
        require_peer(kind, jax.default_backend())
    of_torch = peers.packages([kind for kind in kinds if kind in peers.PEERS])
    surroundings = environment(("jax", "flax", *of_torch, *onnx_peers.packages(kinds)))
    # Other profiles take no weights, so that nothing can differ from how they were trained.
    names = settings.profiles or profiles.sensible(experiment.model)
    changes = experiment.changes if "real" in names else {}
    around = [(name, str(value).replace(":", " ")) for name, value in surroundings.items()]
    print(table([*around, *as_rows(changes)], "Benchmark"), flush=True)
    results, room = [], Room()
    file = folder / "benchmark.json"
    with OtherProcesses() as others:
        for case in cases(experiment, settings):
            name = f"profile {case.name}, batch {len(case.timed)}"
            result = room.attempt(
                name, lambda case=case: run_case(case, experiment.settings, settings, others)
            )
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


def run_case(
    case: Case, settings: Settings, chosen: Benchmark, others: OtherProcesses
) -> dict[str, Any]:
    """Race one case and return its figures, for machines.

    Args:
        case: to race in.
        settings: of the experiment, for training steps.
        chosen: what to race, every choice made, see `scale.completed`.
        others: processes of other numbers of devices, and of peers.

    Raises:
        NoRoom: there is no memory for the dense model.
    """
    batch_size, shape = len(case.timed), case.model.shape
    masked = masked_answers(case)
    usage = of_images(masked.usage, case.timed)

    def with_places(plan: Plan) -> Plan:
        if not CAPPED.offered(case.model):
            return plan
        found = plan.capacities or capacities(masked.usage[0].tokens, shape.num_prefix_tokens)
        return dataclasses.replace(plan, capacities=found)

    plan, room = with_places(case.plan), Room()
    # What is said of a contender behind its name: nothing in this process.
    raced: dict[str, Programs | ProgramsElsewhere] = {"": Programs(case, plan, chosen)}
    for devices, own in case.shared.items():
        made = others.programs(devices, case, with_places(own), chosen)
        raced[f", {devices} devices"] = made
    contenders = {
        f"{name}{where}": run
        for where, one in raced.items()
        for name, run in one.contenders.items()
    }
    full = {f"{name}{where}" for where, one in raced.items() for name in one.left_out}
    contenders |= _peers(case, chosen, room, others)
    times = race(contenders, turns=chosen.turns)
    best = {  # dense program of each process
        where: min(dense, key=lambda name: times[f"{name}{where}"].median())
        for where, one in raced.items()
        if (dense := [name for name in one.contenders if name.startswith("dense of ")])
    }
    if not best:
        raise NoRoom("dense execution, the baseline")
    baseline = min(
        (f"{name}{where}" for where, name in best.items()), key=lambda name: times[name].median()
    )
    stages = case.model.stages
    used = float(np.mean(costs.stages_gmacs(stages, usage)))
    needed = float(case.model.inference_gmacs(usage).mean())
    everything = sum(map(costs.dense_inference_gmacs, stages))
    ideal = everything / needed

    def figures(name: str) -> dict[str, Any]:
        return speed_figures(
            times[name], times[baseline], batch_size=batch_size, ideal=ideal, calls=chosen.calls
        )

    executions = {}
    for where, one in raced.items():
        for name in one.contenders:
            is_dense = name.startswith("dense of ")
            if is_dense and name != best.get(where):
                continue
            row = figures(f"{name}{where}") | one.figures(name, masked)
            useful = everything if is_dense else needed
            row |= peak_figures(row["images_per_second"], useful, shape.dtype)
            executions[name.split(" of ")[0] + where] = row
    for name in peer_names(chosen.peers):
        if name in times:
            row = figures(name) | {"gmacs_executed": costs.dense_gmacs(shape)}  # one network
            row |= peak_figures(row["images_per_second"], row["gmacs_executed"], shape.dtype)
            executions[name] = row
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
        "out_of_memory": sorted(full) + room.left_out,
        "executions": executions,
    }
    if chosen.training:
        result["training"] = train_figures(case, usage, settings, chosen)
    return result


def _peers(case: Case, chosen: Benchmark, room: Room, others: OtherProcesses) -> Contenders:
    """The networks of others, on a CPU in processes of their own."""
    platform = jax.default_backend()
    if platform != "cpu":
        return peers_on_accelerator(case, chosen, room, platform)
    size, calls, found = case.model.shape, chosen.calls or 1, {}
    for name, kind in peer_names(chosen.peers).items():
        run = room.attempt(name, lambda kind=kind: others.peer(kind, size, case.batch, calls))
        if run is not None:
            found[name] = run
    return found
