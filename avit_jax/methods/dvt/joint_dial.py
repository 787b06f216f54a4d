"""One dial for the thresholds of a cascade and for what its exits leave out themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avit_jax.types import SATURATED, Dial, DialSettings

INSIDE = "inner."  # in front of the names of what belongs to the exits' method, as in config.method
# Logits of an inner dial that go with 1 of the thresholds' confidence: both have then reached their
# ends, for thresholds are probabilities and decisions sigmoids.
LOGITS_OF_ONE = 10.0


def of_cascade(threshold_shift: float, inner: Dial | None) -> Dial:
    """The dial of a cascade of several exits; position 0 is its own.

    Args:
        threshold_shift: the cascade's own.
        inner: dial of the exits' method, in logits; without one, positions are what is added to
            the thresholds.
    """
    if inner is None:
        return Dial(
            lambda position: {"threshold_shift": threshold_shift + position}, -SATURATED, SATURATED
        )
    within = of_exits(inner)

    def settings(position: float) -> DialSettings:
        shift = threshold_shift + position / LOGITS_OF_ONE
        return {"threshold_shift": shift, **within.settings(position)}

    return Dial(settings, inner.low, inner.high)


def of_exits(inner: Dial) -> Dial:
    """The dial of the exits' method, as one of the cascade."""

    def settings(position: float) -> DialSettings:
        return {f"{INSIDE}{name}": value for name, value in inner.settings(position).items()}

    return Dial(settings, inner.low, inner.high)


def divided(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the cascade, and those of its exits' method by the names they have there."""
    own = {name: value for name, value in settings.items() if not name.startswith(INSIDE)}
    theirs = {n.removeprefix(INSIDE): value for n, value in settings.items() if n not in own}
    return own, theirs
