"""What each `--mode` does; what it needs is imported when it runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from avit_jax.errors import UserError
from avit_jax.runtime.processes import preemption_notice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a command line says beside config and workdir; each mode reads what it has a use for.

    Attributes:
        source: `--input`.
        output: `--output`.
        budget: `--budget`.
        operating_point: `--operating_point`.
        stream: `--stream`.
        layout: `--layout`.
        limit: `--limit`.
        has_workdir: whether the workdir was named, and is not the one by default.
    """

    source: str | None
    output: Path | None
    budget: tuple[str, ...]
    operating_point: str | None
    stream: bool
    layout: str
    limit: int
    has_workdir: bool


def run_train(config: ConfigDict, workdir: Path, options: Options) -> None:
    """Train, or go on training."""
    from avit_jax.training.loop import train

    train(config, workdir, stop=preemption_notice())


def run_eval(config: ConfigDict, workdir: Path, options: Options) -> None:
    """Exact figures of a trained run."""
    from avit_jax.evaluation.run import evaluate_run

    evaluate_run(config, workdir, operating_point=options.operating_point)


def run_predict(config: ConfigDict, workdir: Path, options: Options) -> None:
    """Answers for every image of a folder or dataset."""
    from avit_jax.prediction.run import predict_run

    predict_run(
        config,
        workdir,
        source=options.source,
        output=options.output,
        stream=options.stream,
        stop=preemption_notice(),
    )


def run_benchmark(config: ConfigDict, workdir: Path, options: Options) -> None:
    """Executions against each other."""
    from avit_jax.benchmark.run import benchmark_run

    benchmark_run(config, workdir, output=options.output)


def run_calibrate(config: ConfigDict, workdir: Path, options: Options) -> None:
    """The fastest exact inference on this machine, or with `--budget` a setting that meets it."""
    if options.budget:
        from avit_jax.calibration.meet_budgets import dial_run

        dial_run(config, workdir, options.budget)
        return
    from avit_jax.calibration.fastest_plan import calibrate_run

    calibrate_run(config, workdir)


def run_visualize(config: ConfigDict, workdir: Path, options: Options) -> None:
    """A page of pictures."""
    from avit_jax.viz.visualize import visualize_run

    visualize_run(
        config, workdir, source=options.source, output=options.output, limit=options.limit
    )


def run_export(config: ConfigDict, workdir: Path, options: Options) -> None:
    """A program for other machines."""
    from avit_jax.export.run import export_run

    export_run(config, workdir, output=options.output)


def run_convert(config: ConfigDict, workdir: Path, options: Options) -> None:
    """Weights between our checkpoints and the files of others."""
    from avit_jax.export.convert import convert_run

    if options.output is None and not options.has_workdir:
        raise UserError(
            "there is no --output: write a weight file such as --output x.safetensors, or a "
            "workdir to be, such as --output runs/x."
        )
    output = None if options.output is None else os.fspath(options.output)
    convert_run(config, workdir, source=options.source, output=output, layout=options.layout)


def run_forecast(config: ConfigDict, workdir: Path, options: Options) -> None:
    """What a run needs on a machine that is not there."""
    from avit_jax.forecast.run import forecast_run

    forecast_run(config, workdir)


MODES: dict[str, Callable[[ConfigDict, Path, Options], None]] = {
    mode.__name__.removeprefix("run_"): mode
    for mode in (
        *(run_train, run_eval, run_predict, run_benchmark, run_calibrate),
        *(run_visualize, run_export, run_convert, run_forecast),
    )
}
