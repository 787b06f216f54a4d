"""The section of a config that `--mode forecast` reads."""

from __future__ import annotations

import dataclasses

from avit_jax import validators
from avit_jax.errors import UserError

PROGRAMS = ("train", "eval", "predict")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """For which machine `--mode forecast` compiles what."""

    # A TPU and its torus ("v5e:16x16", "v4:4x4x4", "v6e:8x8", "v5p:2x2x2"), or GPUs of one host
    # ("h100", "h100:8").
    machine: str = "v5e:4x4"
    programs: tuple[str, ...] = PROGRAMS  # of train, eval and predict
    # Whether to look for the largest train.batch_size that fits: up to five more programs.
    largest_batch: bool = True

    def __post_init__(self):
        validators.one_of((True, False), self, "largest_batch", prefix="config.forecast.")
        unknown = [name for name in self.programs if name not in PROGRAMS]
        if unknown or not self.programs:
            raise UserError(
                f"config.forecast.programs is {tuple(self.programs)}: write some of "
                f"{', '.join(PROGRAMS)}, such as \"('train',)\"."
            )
