"""What a config may not say: values that contradict each other, found before anything runs."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from avit_jax import validators
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
    train, optim = config.train, config.optim
    positive = (
        ("train", ("batch_size", "accumulation", "epochs")),
        ("eval", ("batch_size", "every")),
        ("inference", ("batch_size",)),
        ("checkpoint", ("every", "keep")),
        ("log", ("every",)),
        ("optim", ("learning_rate", "reference_batch_size", "eps")),
    )
    for section, names in positive:
        validators.positive(config[section], *names, prefix=f"config.{section}.")
    _check_source(config.init, "init", "a model starts from")
    _check_source(config.teacher, "teacher", "a student has")
    _check_teacher(config.teacher)
    _check_benchmark(config.benchmark)
    if current_name(config.inference.execution) not in ("auto", *EXECUTIONS):
        raise UserError(
            f"config.inference.execution is {config.inference.execution!r}: write one of auto, "
            f"{', '.join(EXECUTIONS)}."
        )
    validators.not_negative(optim, "weight_decay", "clip_norm", prefix="config.optim.")
    shares = ("warmup", "min_learning_rate", "b1", "b2")
    validators.share_below_one(optim, *shares, prefix="config.optim.")
    validators.share_below_one(train, "ema_decay", "label_smoothing", prefix="config.train.")
    validators.share_below_one(config.data, "max_bad_share", prefix="config.data.")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed is {config.seed}: write a number from 0 to 4294967295.")
    validators.at_least(1, train, "steps", prefix="config.train.", optional=True)
    if train.batch_size % train.accumulation:
        raise UserError(
            f"config.train.batch_size {train.batch_size} is not a multiple of "
            f"config.train.accumulation {train.accumulation}: change one of them."
        )
    validators.one_of(NONFINITE, train, "on_nonfinite", prefix="config.train.")
    validators.one_of(("auto", "ema", "raw"), config.eval, "weights", prefix="config.eval.")
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
    validators.one_of(tuple(PIXELS), source, "pixels", prefix=f"config.{name}.", optional=True)


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
