"""Options of a cascade: DVT's `Settings`."""

from __future__ import annotations

import dataclasses
import itertools
import numbers
from typing import Any, NamedTuple

import jax

from avit_jax import validators
from avit_jax.errors import UserError

NEVER = 2.0  # above every probability: nobody leaves


class Confidence(NamedTuple):
    """What an image leaves at.

    Attributes:
        at_least: of its largest probability.
        temperature: by which the logits are divided first.
    """

    at_least: float
    temperature: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of a cascade; the defaults are the published ones.

    Attributes:
        grids: patches along each side in every exit, the coarsest first; the last is the model's
            own.
        first_splits: of a T2T-ViT, size, stride and padding of the first soft split of each exit
            but the last, such as ((14, 8, 3), (11, 6, 5)); those that suit the grids where empty.
        feature_reuse: whether an exit's last states are joined to the MLPs' inputs of the next.
        relation_reuse: whether an exit's attention scores are added to those of the next.
        context_dim: channels that feature reuse joins.
        context_hidden: hidden width of the small MLPs that make them.
        exit_weights: weight of each exit's loss; 1 where empty.
        thresholds: confidence at which an image leaves, for every exit but the last; where empty,
            all images go to the end.
        temperatures: by which an exit's logits are divided before its confidence is taken, for
            every exit but the last; 1 where empty.
        threshold_shift: added to all thresholds: later or earlier. For the dial.
        inner: settings of the method that every exit runs, as in config.method of `avit`, such as
            config.method.inner.gate_center; a model fills in those of its exits where unset.
    """

    grids: tuple[int, ...] = (7, 10, 14)
    first_splits: tuple[tuple[int, int, int], ...] = ()
    feature_reuse: bool = True
    relation_reuse: bool = True
    context_dim: int = 48
    context_hidden: int = 128
    exit_weights: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = dataclasses.field(default=(), metadata={"use": True})
    temperatures: tuple[float, ...] = dataclasses.field(default=(), metadata={"use": True})
    threshold_shift: float = dataclasses.field(default=0.0, metadata={"use": True})
    inner: Any = None

    def __post_init__(self):
        for name in ("grids", "exit_weights", "thresholds", "temperatures"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        whole = all(isinstance(grid, numbers.Integral) and grid >= 1 for grid in self.grids)
        rises = whole and all(one < other for one, other in itertools.pairwise(self.grids))
        if not self.grids or not rises:
            raise UserError(
                f"grids are {list(self.grids)}: write whole numbers that rise, one for each exit, "
                "such as (7, 10, 14)."
            )
        splits = tuple(tuple(split) for split in self.first_splits)
        object.__setattr__(self, "first_splits", splits)
        if any(len(split) != 3 or min(split[:2]) < 1 or split[2] < 0 for split in splits):
            raise UserError(
                f"first_splits are {list(splits)}: write size, stride and padding of each, such as "
                "((14, 8, 3), (11, 6, 5))."
            )
        exits = len(self.grids)
        of_inner = ("thresholds", "temperatures", "first_splits")
        counts = {"exit_weights": exits} | dict.fromkeys(of_inner, exits - 1)
        for name, wanted in counts.items():
            values = getattr(self, name)
            if values and len(values) != wanted:
                raise UserError(
                    f"{name} are {len(values)} for {exits} exits: write {wanted}, or none."
                )
        for name in ("exit_weights", "thresholds", "temperatures"):
            for value in getattr(self, name):
                if not (isinstance(value, jax.Array) or (_is_number(value) and value >= 0)):
                    raise UserError(f"{name} has {value!r}: write numbers from 0.")
        if any(not isinstance(one, jax.Array) and one == 0 for one in self.temperatures):
            raise UserError(f"temperatures are {list(self.temperatures)}: write numbers above 0.")
        validators.at_least(1, self, "context_dim", "context_hidden")
        validators.finite(self, "threshold_shift")

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each exit's loss."""
        return self.exit_weights or (1.0,) * len(self.grids)

    @property
    def confidences(self) -> tuple[Confidence, ...]:
        """What an image leaves at, for every exit but the last."""
        inner = len(self.grids) - 1
        pairs = zip(
            self.thresholds or (NEVER,) * inner, self.temperatures or (1.0,) * inner, strict=True
        )
        return tuple(
            Confidence(threshold + self.threshold_shift, temperature)
            for threshold, temperature in pairs
        )


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and value < float("inf")
