"""The figures of one contender: speed, cost, memory, compilation."""

from __future__ import annotations

from typing import Any

import jax

from avit_jax.execution.executed_costs import budget_gmacs, filled_up
from avit_jax.execution.predictor import Predictor
from avit_jax.models import costs
from avit_jax.models.backbone import Shape
from avit_jax.runtime.paired_timing import Timing, speedup
from avit_jax.types import Usage


def speed_figures(
    timing: Timing, baseline: Timing, *, batch_size: int, ideal: float
) -> dict[str, Any]:
    """Times and paired ratios.

    Args:
        timing: of the contender.
        baseline: of best dense.
        batch_size: images of one call.
        ideal: speed-up that the multiply-adds promise.
    """
    ratio = speedup(baseline, timing)
    return {
        "milliseconds": 1e3 * timing.median(),
        "milliseconds_all": [1e3 * seconds for seconds in timing.wall],
        "cpu_milliseconds_all": [1e3 * seconds for seconds in timing.cpu],
        "images_per_second": batch_size / timing.median(),
        "speedup": ratio.median,
        "speedup_quartiles": [ratio.low, ratio.high],
        "share_of_ideal": ratio.median / ideal,
    }


def program_figures(program: Predictor, usage: Usage) -> dict[str, Any]:
    """What a compiled program costs, beside time.

    Args:
        program: of any execution.
        usage: of the batch that is timed.
    """
    return {
        "gmacs_executed": gmacs_executed(program, usage),
        "memory_mb": program.memory() / 1e6,
        "compile_seconds": program.compile_seconds,
        "compile_cached": program.compile_cached,
    }


def gmacs_executed(program: Predictor, usage: Usage) -> float:
    """Multiply-adds that a program runs for one image, padding included, in units of 1e9.

    Args:
        program: of any execution of an adaptive model.
        usage: of the batch.
    """
    shape: Shape = program.model.shape
    plan, devices = program.plan, jax.device_count()
    local = program.batch_size // devices
    if program.execution == "compact":
        executed = program.model.executed_gmacs(usage, plan, devices=devices)
        return executed / program.batch_size
    if program.execution == "masked":
        return costs.dense_gmacs(shape)
    if program.execution == "budget":
        return budget_gmacs(shape, plan) * filled_up(local, plan.images) / local
    return costs.dense_inference_gmacs(shape) * filled_up(local, plan.dense_images) / local


def device_peak_mb() -> float | None:
    """The most memory that a device has held so far, in this process; `None` where it is not told.

    It cannot be set back, so it is that of all programs together, the largest of them above all.
    """
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.devices()]
    known = [peak for peak in peaks if peak is not None]
    return max(known) / 1e6 if known else None
