"""What a person sees of a run: the model at its start, lines on the way, a table at its end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from avit_jax.checkpoints.workdir import as_rows
from avit_jax.data.imagenet_variants import ImagenetVariant
from avit_jax.evaluation.dense_twin import dense_twin
from avit_jax.evaluation.evaluate import evaluate, make_eval_step
from avit_jax.experiment import Experiment
from avit_jax.models.functional import Params
from avit_jax.models.shape import Shape
from avit_jax.models.skippable_parts import PARTS
from avit_jax.runtime import goodput
from avit_jax.runtime.device_mesh import platform_of
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.processes import interruptible
from avit_jax.runtime.tables import table
from avit_jax.runtime.training_clock import Effort
from avit_jax.viz import depth_maps
from avit_jax.viz import goodput as goodput_picture


def print_model(experiment: Experiment) -> None:
    """Print what is going to be trained: sizes, parameters, cost, data, steps."""
    model, settings = experiment.model, experiment.settings
    shape, trained = model.shape, model.trained_on(platform_of(experiment.mesh)).shape
    dtype = trained.dtype + (f" for {shape.dtype}" if trained.dtype != shape.dtype else "")
    rows = [
        ("model", experiment.name),
        ("blocks x width x heads", f"{shape.depth} x {shape.embed_dim} x {shape.num_heads}"),
        ("tokens", ", then ".join(map(_tokens, model.stages))),
        ("parameters", f"{model.num_params() / 1e6:.3f} M"),
        ("GMACs per image, dense", f"{model.dense_gmacs():.4g}"),
        ("training images", f"{len(experiment.train_source):,} of {experiment.train_source.name}"),
        ("evaluation images", f"{len(experiment.eval_source):,}"),
        ("steps", f"{experiment.total_steps:,} of {settings.train.batch_size} images"),
        ("devices", f"{jax.device_count()} x {jax.devices()[0].device_kind}, {dtype}"),
        ("workdir", str(experiment.workdir)),
    ]
    teacher = settings.teacher.origin
    rows += [("learns from", teacher)] if teacher else []
    _print(table(rows, "Model"))


def shown(values: dict[str, float]) -> dict[str, float]:
    """What of a log line is worth a look while it runs: losses first, then depth and rate."""
    penalties = [name for name in values if name.endswith("_penalty")]
    usage = [name for name in values if name.endswith("_usage")]
    names = ["loss", "task_loss", *penalties, *usage, "mean_depth", "learning_rate"]
    return {name: values[name] for name in names if name in values}


def eval_line(step: int, results: dict[str, Any], images_per_second: float | None) -> str:
    """One line about an evaluation."""
    speed = f"  {images_per_second:,.0f} images/s" if images_per_second else ""
    return (
        f"evaluation at step {step}: top-1 {results['top1']:.2%}  "
        f"cross-entropy {results['cross_entropy']:.4f}  "
        f"mean depth {results['mean_depth']:.2f}  "
        f"{''.join(f'{part} run {share}  ' for part, share in parts_run(results))}"
        f"{''.join(f'{name} {text}  ' for name, text in _exits(results))}"
        f"{results['gmacs']:.4g} of {results['gmacs_dense']:.4g} GMACs{speed}"
    )


def finish(
    experiment: Experiment,
    params: Params,
    results: dict[str, Any] | None,
    *,
    step: int,
    effort: Effort,
    stop: Callable[[int], bool],
) -> dict[str, Any]:
    """Evaluate the finished model with and without skipping; write pictures, summary and table.

    Args:
        experiment: that was run.
        params: to evaluate.
        results: of the evaluation after the last step; `None` if this process did none.
        step: steps done.
        effort: of the whole training, whatever processes it took.
        stop: asked behind every batch whether the machine is about to be taken away.

    Returns:
        The summary, as written to `summary.json`.

    Raises:
        Preempted: `stop` said so.
    """
    workdir, asked = experiment.workdir, functools.partial(stop, step)
    results = results or evaluate_as(experiment, params, "masked", stop=asked)
    dense = evaluate_as(experiment, params, "dense", stop=asked)
    summary = summarise(experiment, results, dense) | {
        "steps": step,
        "seconds": effort.seconds,
        "train_images_per_second": effort.images_per_second,
        "wall_time": goodput.parts(effort),
        "checkpoint": str(workdir / "checkpoints" / str(step)),
        "metrics": str(workdir / "metrics.jsonl"),
    }
    if jax.process_index() == 0:
        summary["goodput"] = str(workdir / "goodput.png")
        goodput_picture.write(summary["wall_time"], workdir / "goodput.png")
    if jax.process_count() == 1:  # pictures need whole arrays in one process
        picture = workdir / "depth_maps.png"
        summary["depth_maps"] = str(picture)
        summary["map_statistics"] = depth_maps.write(experiment, params, picture)
    summary["summary"] = str(workdir / "summary.json")
    if jax.process_index() == 0:
        write_json_atomic(workdir / "summary.json", summary)
    _print(table(summary_rows(summary), "Result"))
    return summary


def evaluate_as(
    experiment: Experiment,
    params: Params,
    execution: str,
    *,
    strict: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Figures on the evaluation split in "masked" or "dense" execution.

    `strict` is that of `evaluate`; `Preempted` is raised where `stop`, asked behind every batch,
    says so.
    """
    said = "stopped in an evaluation, behind a training that is done and saved"
    return evaluate(
        make_eval_step(experiment.model, experiment.mesh, execution=execution),
        params,
        interruptible(experiment.eval_batches(), stop, said=said),
        experiment.mesh,
        model=experiment.model,
        strict=strict,
    )


def summarise(
    experiment: Experiment, results: dict[str, Any], dense: dict[str, Any]
) -> dict[str, Any]:
    """The machine-readable figures of an evaluation, beside those of dense execution and a twin."""
    twin, source = dense_twin(experiment), experiment.eval_source
    choice = source.choice if isinstance(source, ImagenetVariant) else None
    return {
        "model": experiment.name,
        "data": source.name,
        **({} if choice is None else {"choice_of_classes": len(choice)}),
        **results,
        "top1_dense": dense["top1"],
        "images_per_second_dense": dense["images_per_second"],
        "top1_twin": twin.top1,
        "twin": twin.text,
    }


def parts_run(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Parts that the method chose among, beside tokens, whose share the mean depth says already."""
    kept = {part: results.get(f"{part}_kept") for part in PARTS[1:]}
    return [(part, f"{share:.1%}") for part, share in kept.items() if share is not None]


def class_columns(
    summary: dict[str, Any], class_names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table of what each class used."""
    columns = {"mean depth": ("class_mean_depth", ".2f")}
    columns |= {f"{part} run": (f"class_{part}_kept", ".1%") for part, _ in parts_run(summary)}
    rows = []
    for label, name in enumerate(class_names):
        values = [(summary[key][label], style) for key, style in columns.values()]
        rows.append([name, *("no image" if v is None else format(v, style) for v, style in values)])
    return ["class", *columns], rows


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary as rows of a table."""
    rows = [("weights", summary["weights"])] if "weights" in summary else []
    if "operating_point" in summary:
        rows.append(("operating point", summary["operating_point"]))
    rows += as_rows(summary.get("changes", {}))
    rows.append(("images evaluated", f"{summary['images']:,}"))
    if "unlabelled" in summary:
        rows.append(("images without a label, left out", f"{summary['unlabelled']:,}"))
    if "choice_of_classes" in summary:
        rows.append(("classes to choose from", str(summary["choice_of_classes"])))
    rows += [
        ("top-1, adaptive", f"{summary['top1']:.2%}"),
        ("top-1, same weights, nothing skipped", f"{summary['top1_dense']:.2%}"),
        ("top-1, dense twin", summary["twin"]),
        ("top-5, adaptive", f"{summary['top5']:.2%}"),
        ("cross-entropy, adaptive", f"{summary['cross_entropy']:.4f} nats"),
        ("mean token depth", f"{summary['mean_depth']:.2f} layers"),
        ("token-layers skipped", f"{summary['halted']:.1%}"),
        *((f"{part} run", share) for part, share in parts_run(summary)),
        *_exits(summary),
        ("share of tokens by depth", _by_depth(summary["depth_histogram"])),
        (
            "GMACs per image, used of dense",
            f"{summary['gmacs']:.4g} ± {summary['gmacs_std']:.2g} of {summary['gmacs_dense']:.4g} "
            f"({summary['gmacs'] / summary['gmacs_dense']:.0%})",
        ),
        ("evaluation speed, masked", _rate(summary["images_per_second"])),
    ]
    if "train_images_per_second" in summary:
        rows.append(("training speed", _rate(summary["train_images_per_second"])))
        rows.append(("training time", f"{summary['seconds']:.0f} s"))
        rows.append(("it went into", goodput.said(summary["wall_time"])))
    for name, value in summary.get("map_statistics", {}).items():
        rows.append((f"depth and {name}", value["text"]))
    for name in ("checkpoint", "metrics", "depth_maps", "goodput", "summary"):
        if name in summary:
            rows.append((name.replace("_", " "), summary[name]))
    return rows


def _tokens(shape: Shape) -> str:
    return f"{shape.num_tokens} of {shape.patch_size} x {shape.patch_size} pixels"


def _exits(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Of models with several exits: accuracy up to each, and the share that it answered for."""
    return [
        (name, " ".join(f"{share:.2%}" for share in results[key]))
        for name, key in (("top-1 by exit", "exit_top1"), ("images by exit", "exit_share"))
        if key in results
    ]


def _by_depth(histogram: list[float]) -> str:
    none = 1.0 - sum(histogram)
    shares = [*([(0, none)] if none >= 0.005 else []), *enumerate(histogram, start=1)]
    return "  ".join(f"{layers}: {share:.0%}" for layers, share in shares)


def _rate(images_per_second: float | None) -> str:
    return f"{images_per_second:,.0f} images/s" if images_per_second else "too short to measure"


def _print(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
