"""One dial for the thresholds of a cascade and for what its exits leave out themselves."""

from __future__ import annotations

from avit_jax.types import SATURATED, Dial

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

    def settings(position: float) -> dict[str, float]:
        shift = threshold_shift + position / LOGITS_OF_ONE
        return {"threshold_shift": shift, **inner.settings(position)}

    return Dial(settings, inner.low, inner.high)
