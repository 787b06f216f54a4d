"""All settings but those of a model and its method: types, defaults, and what they may not be.

Each dataclass is a section of a config. A config file and the command line change the `ConfigDict`
that is made from the defaults; `Settings.of` makes it typed parts again, once, and what runs
afterwards reads those.

A new setting is one line here. If its default changes what older runs did, or if it may change
between two parts of one run, that line says so: see `settings.py`.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Self

from ml_collections import ConfigDict

from avit_jax import validators
from avit_jax.config.data import Data
from avit_jax.config.forecast import Forecast
from avit_jax.config.inference import MOST_IMAGES, Benchmark, Eval, Inference
from avit_jax.config.optim import Optim
from avit_jax.config.settings import CHANGEABLE, OF_USE, changeable, expand_home
from avit_jax.errors import UserError
from avit_jax.losses.classification import TASK_LOSSES
from avit_jax.losses.distillation import Distillation
from avit_jax.pretrained.pixels import PIXELS

MOST_STEPS = 2**31 - 1  # what the step's number on the devices can count


def _check_source(source: Init | Teacher, name: str, why: str) -> None:
    expand_home(source, "workdir", "weights")
    if source.workdir and source.weights:
        raise UserError(
            f"config.{name}.workdir is {source.workdir!r} and config.{name}.weights "
            f"{source.weights!r}, but {why} one of them: leave the other out."
        )
    validators.one_of(tuple(PIXELS), source, "pixels", prefix=f"config.{name}.", optional=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """What to start from, one of the two at most.

    A training takes the EMA in either, if there is one; other modes take what `eval.weights` says.
    """

    workdir: str | None = None  # of a run of this project: its newest checkpoint
    weights: str | None = None  # of somebody else: .pth, .safetensors, .npz, or hf://owner/name
    # What `weights` expects of pixels: "imagenet" (DeiT, timm's rule) or
    # "symmetric" (AugReg). Unset: symmetric for google-research's .npz files.
    pixels: str | None = None
    # Whether training may start from random weights; False in recipes for fine-tuning.
    scratch: bool = True

    def __post_init__(self):
        _check_source(self, "init", "a model starts from")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher(Distillation):
    """A trained dense model to learn from beside the labels, given as in `Init`, if any is.

    What the student is held to, and how much that weighs, are fields of `Distillation`.
    """

    workdir: str | None = None  # as in `init`
    weights: str | None = None  # as in `init`
    pixels: str | None = None  # as in `init`
    # Which model `weights` are of, by its name; this one's backbone where unset.
    model: str | None = None

    def __post_init__(self):
        _check_source(self, "teacher", "a student has")
        super().__post_init__()
        if self.workdir and self.model:
            raise UserError(
                f"config.teacher.model is {self.model!r}, but the run in config.teacher.workdir "
                "says itself which model it is: leave one of them out."
            )

    def refuse_without_origin(self) -> None:
        """Raises UserError where something is said of a teacher and none is named."""
        unset = {"pixels": None, "model": None, **dataclasses.asdict(Distillation())}
        changed = [name for name, value in unset.items() if getattr(self, name) != value]
        if changed and not self.origin:
            raise UserError(
                f"config.teacher.{changed[0]} is {getattr(self, changed[0])!r}, but there is no "
                "teacher: write --config.teacher.workdir RUN or --config.teacher.weights FILE, or "
                "leave it out."
            )

    @property
    def origin(self) -> str | None:
        """The run or file that the teacher is from; `None` where nothing is learnt from one."""
        return self.workdir or self.weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """How long a training lasts and what a step is."""

    batch_size: int = 1024  # images per step, over all devices and processes
    epochs: float = 100.0  # passes over the training images
    steps: int | None = None  # instead of epochs
    accumulation: int = 1  # microbatches per step; penalties are means over microbatches
    # "all", or "live": tokens that have halted are left out of a step, with the same gradients.
    rows: str = "all"
    # "cross_entropy", or "bce": each class present or not, as in arXiv 2110.00476 and timm, mean
    # over the classes, so that penalties weigh more beside it.
    loss: str = "cross_entropy"
    label_smoothing: float = 0.1  # share of a label that goes to all classes alike
    ema_decay: float = 0.0  # 0: no moving average of the parameters
    ema_warmup: bool = False  # decay is min(ema_decay, (1 + step) / (10 + step)), for few steps
    # At a loss or gradient that is not finite: "stop", or "rollback": back to the last checkpoint,
    # and that step is skipped.
    on_nonfinite: str = changeable("stop")
    max_rollbacks: int = changeable(3)  # then the run stops all the same

    def __post_init__(self):
        prefix = "config.train."
        validators.positive(self, "batch_size", "accumulation", "epochs", prefix=prefix)
        validators.between(1, MOST_IMAGES, self, "batch_size", prefix=prefix)
        validators.share_below_one(self, "ema_decay", "label_smoothing", prefix=prefix)
        validators.at_least(1, self, "steps", prefix=prefix, optional=True)
        validators.between(1, MOST_STEPS, self, "steps", prefix=prefix, optional=True)
        validators.between(0, MOST_STEPS, self, "epochs", prefix=prefix)  # of a step at least
        if self.batch_size % self.accumulation:
            raise UserError(
                f"config.train.batch_size {self.batch_size} is not a multiple of "
                f"config.train.accumulation {self.accumulation}: change one of them."
            )
        validators.one_of(("stop", "rollback"), self, "on_nonfinite", prefix=prefix)
        validators.one_of(("all", "live"), self, "rows", prefix=prefix)
        validators.one_of(tuple(TASK_LOSSES), self, "loss", prefix=prefix)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
    """How the devices of all processes are arranged: images are split over both axes."""

    data: int = -1  # rows of the mesh; -1: as many as the devices make
    fsdp: int = 1  # columns, over which parameters are split, too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How often a training is saved, and how much of it stays."""

    every: float = 1.0  # epochs
    keep: int = 2  # number of the newest

    def __post_init__(self):
        validators.positive(self, "every", "keep", prefix="config.checkpoint.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Log:
    """What a training says on its way."""

    every: int = 50  # steps
    tensorboard: bool = changeable(True)  # also write events, into WORKDIR/tensorboard

    def __post_init__(self):
        validators.positive(self, "every", prefix="config.log.")
        validators.between(1, MOST_STEPS, self, "every", prefix="config.log.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """Steps of a training that are traced for XProf and TensorBoard, into WORKDIR/profile."""

    start: int = 10  # steps made before it; the first one is compiled
    steps: int = 0  # number of steps; 0: no trace

    def __post_init__(self):
        validators.not_negative(self, "start", "steps", prefix="config.profile.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings but those in `config.model` and `config.method`, which say what model it is."""

    seed: int = 0  # of all that is random: weights, order, augmentation, mixing, dropout
    init: Init = dataclasses.field(default_factory=Init)
    teacher: Teacher = dataclasses.field(default_factory=Teacher)
    data: Data = dataclasses.field(default_factory=Data, metadata=OF_USE)
    train: Train = dataclasses.field(default_factory=Train)
    optim: Optim = dataclasses.field(default_factory=Optim)
    mesh: Mesh = dataclasses.field(default_factory=Mesh, metadata=OF_USE)
    eval: Eval = dataclasses.field(default_factory=Eval, metadata=OF_USE)
    inference: Inference = dataclasses.field(default_factory=Inference, metadata=CHANGEABLE)
    benchmark: Benchmark = dataclasses.field(default_factory=Benchmark, metadata=CHANGEABLE)
    forecast: Forecast = dataclasses.field(default_factory=Forecast, metadata=CHANGEABLE)
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint, metadata=CHANGEABLE)
    log: Log = dataclasses.field(default_factory=Log, metadata=OF_USE)
    profile: Profile = dataclasses.field(default_factory=Profile, metadata=CHANGEABLE)
    # Workdir of a dense run to set beside the results.
    dense_twin: str | None = changeable(None)

    def __post_init__(self):
        expand_home(self, "dense_twin")
        self.data.mix.refuse_uneven(self.train.batch_size)
        if not 0 <= self.seed < 2**32:
            raise UserError(f"config.seed is {self.seed}: write a number from 0 to 4294967295.")
        of_schedule = (self.optim.warmup_epochs or 0.0) + self.optim.cooldown_epochs
        if of_schedule and of_schedule >= self.train.epochs:
            raise UserError(
                f"config.optim.warmup_epochs and cooldown_epochs are {of_schedule:g} epochs "
                f"together, but config.train.epochs is {self.train.epochs:g}: write fewer of them, "
                "or more epochs."
            )
        if self.eval.weights == "ema" and not self.train.ema_decay:
            raise UserError(
                "config.eval.weights is 'ema', but config.train.ema_decay is 0, so there is no "
                "moving average: write auto or raw, or train with an ema_decay such as 0.9999."
            )

    @classmethod
    def of(cls, config: ConfigDict) -> Self:
        """The settings of a config.

        Raises:
            UserError: the first value or contradiction that cannot be, with what to write.
        """
        return _typed(cls, config)


def _typed(section: type, values: ConfigDict) -> Any:
    hints = typing.get_type_hints(section)
    given = {field.name: values[field.name] for field in dataclasses.fields(section)}
    return section(
        **{
            name: _typed(hints[name], value) if isinstance(value, ConfigDict) else value
            for name, value in given.items()
        }
    )
