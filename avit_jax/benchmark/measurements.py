"""The figures of one contender: speed, cost, memory, compilation."""

from __future__ import annotations

from typing import Any

import jax

from avit_jax.benchmark.peaks import published_peak
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.predictor import Predictor
from avit_jax.methods.base import Model
from avit_jax.runtime.paired_timing import Timing, speedup
from avit_jax.types import Usage


def speed_figures(
    timing: Timing, baseline: Timing, *, batch_size: int, ideal: float, calls: int = 1
) -> dict[str, Any]:
    """Times and paired ratios.

    Args:
        timing: of the contender.
        baseline: of best dense.
        batch_size: images of one call.
        ideal: speed-up that the multiply-adds promise.
        calls: that were timed together, one behind the other; times are those of one.
    """
    ratio = speedup(baseline, timing)
    return {
        "milliseconds": 1e3 * timing.median() / calls,
        "milliseconds_all": [1e3 * seconds / calls for seconds in timing.wall],
        "cpu_milliseconds_all": [1e3 * seconds / calls for seconds in timing.cpu],
        "images_per_second": calls * batch_size / timing.median(),
        "speedup": ratio.median,
        "speedup_quartiles": [ratio.low, ratio.high],
        "share_of_ideal": ratio.median / ideal,
    }


def program_figures(program: Predictor, model: Model, usage: tuple[Usage, ...]) -> dict[str, Any]:
    """What a compiled program costs, beside time.

    Args:
        program: of any execution.
        model: that it runs.
        usage: of the batch that is timed, per stage.
    """
    execution, plan = program.execution, program.plan
    executed = executed_gmacs(execution, model, usage, plan, devices=jax.device_count())
    return {
        "gmacs_executed": executed / program.batch_size,  # per image, padding included
        **memory_figures(program.memory_analysis()),
        "compile_seconds": program.compile_seconds,
        "compile_cached": program.compile_cached,
    }


def memory_figures(sizes: Any) -> dict[str, float]:
    """What a program needs on one device, by the compiler's own account, in megabytes.

    Args:
        sizes: `memory_analysis()` of a compiled program.

    Returns:
        `memory_mb`: arguments (weights and images), answers and temporaries together;
        `temporaries_mb`: the last alone.
    """
    everything = (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        - sizes.alias_size_in_bytes
        + sizes.temp_size_in_bytes
    )
    return {"memory_mb": everything / 1e6, "temporaries_mb": sizes.temp_size_in_bytes / 1e6}


def peak_figures(images_per_second: float, gmacs: float, dtype: str) -> dict[str, float]:
    """`share_of_peak`: arithmetic that was asked for over what all devices can do at most.

    Nothing where no peak is published for the device and dtype, see `peaks.py`.

    Args:
        images_per_second: measured.
        gmacs: that an image needs; padding and masked work do not count.
        dtype: of the products.
    """
    peak = published_peak(jax.devices()[0].device_kind, dtype)
    if peak is None:
        return {}
    return {"share_of_peak": 2e9 * gmacs * images_per_second / (peak * jax.device_count())}


def device_peak_mb() -> float | None:
    """The most memory that a device has held so far, in this process; `None` where it is not told.

    It cannot be set back, so it is that of all programs together, the largest of them above all.
    """
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.devices()]
    known = [peak for peak in peaks if peak is not None]
    return max(known) / 1e6 if known else None
