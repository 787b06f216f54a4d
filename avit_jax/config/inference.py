"""The sections of a config that are about a finished model: `eval`, `inference`, `benchmark`."""

from __future__ import annotations

import dataclasses

from avit_jax import validators
from avit_jax.config.settings import changeable
from avit_jax.errors import UserError
from avit_jax.execution.executions import EXECUTIONS, current_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
    """When and with which weights a model is evaluated."""

    batch_size: int = changeable(256)
    # Epochs; also saves a checkpoint. The last step always does both.
    every: float = changeable(5.0)
    weights: str = "auto"  # "auto": EMA where there is one; "ema"; "raw". Of files too

    def __post_init__(self):
        validators.positive(self, "batch_size", "every", prefix="config.eval.")
        validators.one_of(("auto", "ema", "raw"), self, "weights", prefix="config.eval.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
    """How a finished model runs."""

    batch_size: int = 32  # images that --mode predict and benchmark put through together
    # "auto": the fastest exact one that --mode calibrate found, else compact on CPUs, static on
    # GPUs and masked on TPUs; or "compact", "static", "masked", "dense", "capped".
    execution: str = "auto"
    # Static sizes of the program, see execution/plan.py; those of --mode calibrate, or sensible
    # ones, where unset.
    images: int | None = None
    row_sizes: tuple[int, ...] | None = None
    attention_images: int | None = None
    lengths: tuple[int, ...] | None = None
    dense_images: int | None = None
    fused_attention: bool | None = None  # cuDNN's kernel, on NVIDIA GPUs: bfloat16
    unrolled: bool | None = None  # layers one by one instead of a loop: for GPUs
    capacities: tuple[int, ...] | None = None  # places in each layer, for execution "capped"
    static_rows: tuple[int, ...] | None = None  # rows in each layer, for execution "static"

    def __post_init__(self):
        validators.positive(self, "batch_size", prefix="config.inference.")
        if current_name(self.execution) not in ("auto", *EXECUTIONS):
            raise UserError(
                f"config.inference.execution is {self.execution!r}: write one of auto, "
                f"{', '.join(EXECUTIONS)}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What `--mode benchmark` races."""

    batch_sizes: tuple[int, ...] = (1, 16, 32, 64)
    image_sizes: tuple[int, ...] | None = None  # the model's own where unset
    dtypes: tuple[str, ...] | None = None  # the model's own where unset
    # Synthetic: paper, half, none; real: this run's own. Unset: paper and half where the model has
    # them, else real.
    profiles: tuple[str, ...] | None = None
    executions: tuple[str, ...] = ("dense", "masked", "compact", "static", "capped")
    turns: int = 9
    peers: tuple[str, ...] | None = None  # of PyTorch, where it is installed: eager, compile

    def __post_init__(self):
        known = {
            "profiles": ("paper", "half", "none", "real"),
            "executions": tuple(EXECUTIONS),
            "peers": ("eager", "compile"),
        }
        for name, values in known.items():
            given = tuple(map(current_name, getattr(self, name) or ()))
            unknown = [value for value in given if value not in values]
            if unknown or (name == "executions" and not given):
                raise UserError(
                    f"config.benchmark.{name} is {given}: write some of {', '.join(values)}, such "
                    f'as "({values[0]!r},)".'
                )
        if "dense" not in self.executions:
            raise UserError(
                "config.benchmark.executions has no dense, which is the baseline: add 'dense'."
            )
        if self.turns < 1 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UserError(
                f"config.benchmark has turns {self.turns} and batch_sizes {self.batch_sizes}: "
                "write at least one turn and one batch of one image."
            )
