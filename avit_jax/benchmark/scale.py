"""How large a race must be to say something about a machine, where the config leaves it open."""

from __future__ import annotations

import dataclasses

from avit_jax.config.inference import Benchmark
from avit_jax.execution.executions import EXECUTIONS

CPU_BATCHES = (1, 16, 32, 64)
ACCELERATOR_BATCHES = (128, 256, 512, 1024)
ACCELERATOR_CALLS = 10  # in a row: the host's part of a call is hidden behind the device's
# Every loop of compact execution waits for the host there, and compiling it takes minutes.
NOT_ON_ACCELERATORS = ("compact",)


def completed(settings: Benchmark, platform: str) -> Benchmark:
    """The settings with what is unset chosen for a platform, as JAX names it."""
    on_cpu = platform == "cpu"
    executions = tuple(name for name in EXECUTIONS if on_cpu or name not in NOT_ON_ACCELERATORS)
    return dataclasses.replace(
        settings,
        batch_sizes=settings.batch_sizes or (CPU_BATCHES if on_cpu else ACCELERATOR_BATCHES),
        executions=settings.executions or executions,
        calls=settings.calls or (1 if on_cpu else ACCELERATOR_CALLS),
    )
