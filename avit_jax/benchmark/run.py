"""`--mode benchmark`: dense, masked, compact and budget executions against each other.

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

from avit_jax import config as configs
from avit_jax import flops
from avit_jax.benchmark import peers, profiles
from avit_jax.benchmark.environment import environment
from avit_jax.benchmark.plot import plot
from avit_jax.benchmark.race import Timing, race, speedup
from avit_jax.calibrate import calibration_images, capacities, refuse_unless_halting
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.inference.plan import Plan, default_plan
from avit_jax.inference.plans import chosen_plan
from avit_jax.inference.predictor import Predictor
from avit_jax.methods.base import Model
from avit_jax.models.module import Params
from avit_jax.restore import chosen_weights
from avit_jax.sharding import make_mesh
from avit_jax.types import Usage
from avit_jax.writer import columns, write_json_atomic

DENSE_GROUPS = (1, 2, 4, 8)  # images that dense candidates treat together


@dataclasses.dataclass(frozen=True)
class Case:
    """One setting to race in: a model with weights, and images that it is to treat."""

    name: str
    model: Model
    params: Params
    images: np.ndarray
    plan: Plan


def benchmark_run(config: ConfigDict, workdir: Path, *, output: Path | None = None) -> Path:
    """Race all cases of `config.benchmark`; print tables, write `benchmark.json` and a plot.

    Args:
        config: of the experiment; only profile "real" needs its data and a trained run.
        workdir: of the run.
        output: folder for the results; `workdir` if unset.

    Returns:
        The JSON file.
    """
    configs.validate(config)
    refuse_unless_halting(config, "benchmark")
    folder = output or workdir
    surroundings = environment()
    print("\n".join(f"{name}: {value}" for name, value in surroundings.items()), flush=True)
    results = []
    for case in cases(config, workdir):
        results.append(run_case(case, config))
        print_case(results[-1])
        # Written after every case, so that a benchmark that is stopped keeps what it has.
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "benchmark.json"
        write_json_atomic(file, {"environment": surroundings, "cases": results})
    picture = plot(results, folder / "benchmark.png")
    print(f"written: {file}, {picture}")
    return file


def cases(config: ConfigDict, workdir: Path) -> Iterator[Case]:
    """Every combination of image size, dtype, batch size and profile."""
    settings = config.benchmark
    sizes = settings.image_sizes or (config.model.image_size,)
    dtypes = settings.dtypes or (config.model.dtype,)
    for size, dtype, batch_size in itertools.product(sizes, dtypes, settings.batch_sizes):
        changed = ConfigDict(config.to_dict())
        changed.model.image_size, changed.model.dtype = size, dtype
        changed.inference.batch_size = batch_size
        if batch_size % jax.device_count():
            print(f"batch {batch_size} left out: not a multiple of {jax.device_count()} devices")
            continue
        model = configs.make_model(changed)
        plan = chosen_plan(changed, workdir) or default_plan(
            model.shape.num_tokens, max(1, batch_size // jax.device_count())
        )
        for name in settings.profiles:
            if name == "real":
                yield real_case(changed, workdir, model, plan)
            else:
                params = profiles.scripted_params(model, model.init(jax.random.key(config.seed)))
                profile = profiles.make_profile(model, name, batch_size, seed=config.seed)
                images = profiles.scripted_images(model, profile, seed=config.seed)
                yield Case(name, model, params, images, plan)


def real_case(config: ConfigDict, workdir: Path, model: Model, plan: Plan) -> Case:
    """This run's weights on images of its evaluation split, drawn from all of it."""
    experiment = Experiment(config, workdir)
    params = chosen_weights(config, workdir, model, make_mesh()).params
    batch_size = config.inference.batch_size
    images = calibration_images(experiment, batch_size)
    if len(images) < batch_size:
        raise UserError(
            f"the evaluation split gives {len(images)} images for a batch of {batch_size}: "
            "write smaller config.benchmark.batch_sizes."
        )
    return Case("real", model, params, images, plan)


def run_case(case: Case, config: ConfigDict) -> dict[str, Any]:
    """Race one case and return its figures, for machines."""
    batch_size, shape = len(case.images), case.model.shape
    exact = case.model.apply(case.params, case.images)
    usage = Usage(tokens=np.asarray(exact.usage.tokens))
    plan = dataclasses.replace(
        case.plan,
        capacities=case.plan.capacities or capacities(usage.tokens, shape.num_prefix_tokens),
    )
    programs = dict(_programs(case, plan, config.benchmark.executions))
    contenders = {name: _ready(program, case.images) for name, program in programs.items()}
    for kind in config.benchmark.peers or ():
        contenders[f"torch {kind}"] = peers.peer(kind, shape, case.images)
    times = race(contenders, turns=config.benchmark.turns)
    dense = [name for name in times if name.startswith("dense")]
    baseline = min(dense, key=lambda name: times[name].median())
    kept = {name: t for name, t in times.items() if name not in dense or name == baseline}
    needed = float(flops.inference_gmacs(shape, usage).mean())
    ideal = flops.dense_inference_gmacs(shape) / needed
    return {
        "profile": case.name,
        "batch_size": batch_size,
        "image_size": shape.image_size,
        "embed_dim": shape.embed_dim,
        "dtype": shape.dtype,
        "turns": config.benchmark.turns,
        "gmacs_dense": flops.dense_inference_gmacs(shape),
        "gmacs_live": needed,
        "ideal_speedup": ideal,
        "baseline": baseline,
        "plan": plan.to_dict(),
        "executions": {
            name.split(" of ")[0]: _figures(
                timing, times[baseline], ideal, programs.get(name), case, exact
            )
            for name, timing in kept.items()
        },
    }


def _programs(case: Case, plan: Plan, executions: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    batch_size = len(case.images)
    local = max(1, batch_size // jax.device_count())
    # A single image at a time pays only where there is no more than one.
    groups = {group for group in DENSE_GROUPS if 1 < group <= local} or {1}
    for group in sorted(groups | {plan.dense_images}):
        changed = dataclasses.replace(plan, dense_images=group)
        program = case.model.compile(
            case.params, batch_size=batch_size, execution="dense", plan=changed
        )
        yield f"dense of {group}", program
    for execution in executions:
        if execution != "dense":
            yield (
                execution,
                case.model.compile(
                    case.params, batch_size=batch_size, execution=execution, plan=plan
                ),
            )


def _ready(program: Predictor, images: np.ndarray) -> Callable[[], Any]:
    arguments = program.put(images)
    return lambda: program.run(*arguments).logits


def _figures(
    timing: Timing,
    baseline: Timing,
    ideal: float,
    program: Predictor | None,
    case: Case,
    exact: Any,
) -> dict[str, Any]:
    ratio = speedup(baseline, timing)
    figures: dict[str, Any] = {
        "milliseconds": 1e3 * timing.median(),
        "milliseconds_all": [1e3 * seconds for seconds in timing.wall],
        "cpu_milliseconds_all": [1e3 * seconds for seconds in timing.cpu],
        "images_per_second": len(case.images) / timing.median(),
        "speedup": ratio.median,
        "speedup_quartiles": [ratio.low, ratio.high],
        "share_of_ideal": ratio.median / ideal,
    }
    if program is None:
        return figures
    output = program(case.images)
    figures["compile_seconds"] = program.compile_seconds
    figures["memory_mb"] = program.memory().temp_size_in_bytes / 1e6
    if program.execution == "compact":
        tokens = np.asarray(output.usage.tokens)
        executed = flops.executed_gmacs(
            case.model.shape, tokens, program.plan, devices=jax.device_count()
        )
        figures["gmacs_executed"] = executed / len(case.images)
    if program.execution in ("masked", "compact", "budget"):
        difference = np.abs(np.asarray(output.logits) - np.asarray(exact.logits)).max(-1)
        near = np.abs(np.asarray(exact.aux["cumulative"]) - _threshold(case.model)) < 1e-5
        near = near.any((0, 2))
        figures["images_near_threshold"] = int(near.sum())
        figures["logit_difference"] = float(difference[~near].max(initial=0.0))
    if "dropped" in output.aux:
        figures["images_affected"] = float((np.asarray(output.aux["dropped"]) > 0).any(0).mean())
    return figures


def _threshold(model: Model) -> float:
    return 1.0 - getattr(model.settings, "eps", 0.0)


def print_case(result: dict[str, Any]) -> None:
    """One case as a table."""
    size, dtype = result["image_size"], result["dtype"]
    print(
        f"\nprofile {result['profile']}, batch {result['batch_size']}, {size} px, {dtype}: "
        f"{result['gmacs_live']:.3g} of {result['gmacs_dense']:.3g} GMACs, "
        f"ideal speed-up {result['ideal_speedup']:.2f}; baseline {result['baseline']}"
    )
    rows = []
    for name, f in result["executions"].items():
        low, high = f["speedup_quartiles"]
        rows.append(
            (
                name,
                f"{f['milliseconds']:.1f}",
                f"{f['images_per_second']:.1f}",
                f"{f['speedup']:.2f} ({low:.2f}-{high:.2f})",
                f"{f['share_of_ideal']:.2f}",
                _or_blank(f, "gmacs_executed", ".3g"),
                _or_blank(f, "memory_mb", ".0f"),
                _or_blank(f, "compile_seconds", ".1f"),
                _or_blank(f, "logit_difference", ".1e"),
            )
        )
    head = ["execution", "ms", "images/s", "speed-up (quartiles)", "of ideal", "GMACs run"]
    print(columns([*head, "MB", "compile s", "logit diff."], rows), flush=True)


def _or_blank(figures: dict[str, Any], name: str, form: str) -> str:
    return format(figures[name], form) if name in figures else ""
