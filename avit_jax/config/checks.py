"""What a config may not say: values that contradict each other, found before anything runs."""

from __future__ import annotations

import dataclasses
import math

from ml_collections import ConfigDict

from avit_jax.errors import UserError
from avit_jax.execution.executions import EXECUTIONS, current_name
from avit_jax.losses.distillation import Distillation
from avit_jax.pretrained.pixels import PIXELS

NONFINITE = ("stop", "rollback")


def validate(config: ConfigDict) -> None:
    """Refuse values that contradict each other, with one sentence that says what to write.

    Raises:
        UserError: the first contradiction found.
    """
    train = config.train
    positive = {
        "train.batch_size": train.batch_size,
        "train.accumulation": train.accumulation,
        "train.epochs": train.epochs,
        "eval.batch_size": config.eval.batch_size,
        "inference.batch_size": config.inference.batch_size,
        "eval.every": config.eval.every,
        "checkpoint.every": config.checkpoint.every,
        "checkpoint.keep": config.checkpoint.keep,
        "log.every": config.log.every,
        "optim.learning_rate": config.optim.learning_rate,
        "optim.reference_batch_size": config.optim.reference_batch_size,
        "optim.eps": config.optim.eps,
    }
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise UserError(f"config.{name} is {value}: write a number above 0.")
    _check_source(config.init, "init", "a model starts from")
    _check_source(config.teacher, "teacher", "a student has")
    _check_teacher(config.teacher)
    _check_benchmark(config.benchmark)
    if current_name(config.inference.execution) not in ("auto", *EXECUTIONS):
        raise UserError(
            f"config.inference.execution is {config.inference.execution!r}: write one of auto, "
            f"{', '.join(EXECUTIONS)}."
        )
    for name in ("weight_decay", "clip_norm"):
        if not 0 <= config.optim[name] < math.inf:
            raise UserError(f"config.optim.{name} is {config.optim[name]}: write 0 or more.")
    shares = {
        "train.ema_decay": train.ema_decay,
        "train.label_smoothing": train.label_smoothing,
        "optim.warmup": config.optim.warmup,
        "optim.min_learning_rate": config.optim.min_learning_rate,
        "optim.b1": config.optim.b1,
        "optim.b2": config.optim.b2,
        "data.max_bad_share": config.data.max_bad_share,
    }
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise UserError(f"config.{name} is {value}: write a share, at least 0 and below 1.")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed is {config.seed}: write a number from 0 to 4294967295.")
    if train.steps is not None and train.steps < 1:
        raise UserError(f"config.train.steps is {train.steps}: write at least 1, or leave it out.")
    if train.batch_size % train.accumulation:
        raise UserError(
            f"config.train.batch_size {train.batch_size} is not a multiple of "
            f"config.train.accumulation {train.accumulation}: change one of them."
        )
    if train.on_nonfinite not in NONFINITE:
        raise UserError(
            f"config.train.on_nonfinite is {train.on_nonfinite!r}: write {' or '.join(NONFINITE)}."
        )
    if config.eval.weights not in ("auto", "ema", "raw"):
        raise UserError(f"config.eval.weights is {config.eval.weights!r}: write auto, ema or raw.")
    if config.eval.weights == "ema" and not train.ema_decay:
        raise UserError(
            "config.eval.weights is 'ema', but config.train.ema_decay is 0, so there is no moving "
            "average: write auto or raw, or train with an ema_decay such as 0.9999."
        )


def _check_source(source: ConfigDict, name: str, why: str) -> None:
    if source.workdir and source.weights:
        raise UserError(
            f"config.{name}.workdir is {source.workdir!r} and config.{name}.weights "
            f"{source.weights!r}, but {why} one of them: leave the other out."
        )
    if source.pixels is not None and source.pixels not in PIXELS:
        raise UserError(
            f"config.{name}.pixels is {source.pixels!r}: write one of {', '.join(PIXELS)}, or "
            "leave it out."
        )


def _check_teacher(teacher: ConfigDict) -> None:
    Distillation.from_config(teacher)
    if teacher.workdir and teacher.model:
        raise UserError(
            f"config.teacher.model is {teacher.model!r}, but the run in config.teacher.workdir "
            "says itself which model it is: leave one of them out."
        )
    unset = {"pixels": None, "model": None, **dataclasses.asdict(Distillation())}
    changed = [name for name, value in unset.items() if teacher[name] != value]
    if changed and not (teacher.workdir or teacher.weights):
        raise UserError(
            f"config.teacher.{changed[0]} is {teacher[changed[0]]!r}, but there is no teacher: "
            "write --config.teacher.workdir RUN or --config.teacher.weights FILE, or leave it out."
        )


def _check_benchmark(benchmark: ConfigDict) -> None:
    known = {
        "profiles": ("paper", "half", "none", "real"),
        "executions": tuple(EXECUTIONS),
        "peers": ("eager", "compile"),
    }
    for name, values in known.items():
        given = tuple(map(current_name, benchmark[name] or ()))
        unknown = [value for value in given if value not in values]
        if unknown or (name == "executions" and not given):
            raise UserError(
                f"config.benchmark.{name} is {given}: write some of {', '.join(values)}, such as "
                f'"({values[0]!r},)".'
            )
    if "dense" not in benchmark.executions:
        raise UserError(
            "config.benchmark.executions has no dense, which is the baseline: add 'dense'."
        )
    if benchmark.turns < 1 or not benchmark.batch_sizes or min(benchmark.batch_sizes) < 1:
        raise UserError(
            f"config.benchmark has turns {benchmark.turns} and batch_sizes "
            f"{benchmark.batch_sizes}: write at least one turn and one batch of one image."
        )
