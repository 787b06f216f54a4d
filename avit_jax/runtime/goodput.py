"""Where the wall time of a training went, and what share of it made steps that count.

Goodput is that share (the term is Google's for training, after that of networks): everything else
is overhead that a faster disk, another schedule of checkpoints or fewer restarts would give back.
"""

from __future__ import annotations

from avit_jax.runtime.training_clock import Effort

STEPS = "steps"


def parts(effort: Effort) -> dict[str, float]:
    """Seconds by what they went into; together `effort.seconds`, and none is negative.

    `steps` are those that count, without waiting for their data; `lost` is the time of steps that
    were to be done again; `other` is what belongs to none: start-up, restoring, writing logs.
    """
    known = {
        STEPS: max(0.0, effort.timed_seconds - effort.waiting),
        "waiting for data": effort.waiting,
        "compiling": effort.compiling,
        "checkpoints": effort.saving,
        "evaluation": effort.evaluating,
        "lost": effort.lost,
    }
    return known | {"other": max(0.0, effort.seconds - sum(known.values()))}


def said(seconds: dict[str, float]) -> str:
    """Shares of `parts` as a person reads them, in whole percent; none where nothing went by."""
    total = sum(seconds.values())
    shares = {name: spent / total for name, spent in seconds.items()} if total else {}
    shown = [f"{name} {share:.0%}" for name, share in shares.items() if round(100 * share)]
    return ", ".join(shown) or "too short to measure"
