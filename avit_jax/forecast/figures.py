"""What a compiled program says about a run, as figures."""

from __future__ import annotations

from typing import Any

from avit_jax.forecast.collectives import traffic
from avit_jax.forecast.compiled_text import work_of
from avit_jax.forecast.machines import Machine
from avit_jax.forecast.memory_traffic import kernel_bytes
from avit_jax.forecast.programs import Program


def figures(program: Program, machine: Machine, *, devices: int, dtype: str) -> dict[str, Any]:
    """Of one run of a program on one device, as it stands in `forecast.json`.

    `memory` in bytes, `collectives` as `collectives.Traffic`, `waits` (loops and branches that
    depend on data), `kernels`, `flops` and `kernel_bytes`. Times in ms, none of them measured:
    `compiler_estimate_ms` is a TPU compiler's cycles over the chip's clock (`None` elsewhere; it
    leaves out gathers, kernels of our own and how often loops repeat that depend on data), and
    `roofline_ms` the longer of FLOPs over the published peak and bytes over the published
    bandwidth, below which no run can be.
    """
    work, moved = work_of(program.text), kernel_bytes(program.text)
    peak = machine.peak(dtype)
    arithmetic = None if peak is None else 1e3 * program.flops / peak
    memory_time = 1e3 * moved / machine.bandwidth
    is_estimated = machine.clock and work.cycles
    return {
        "compile_seconds": round(program.seconds, 1),
        "memory": {
            "arguments": program.arguments,
            "temporaries": program.temporaries,
            "outputs": program.outputs,
            "total": program.memory,
        },
        "fits": program.memory <= machine.memory,
        "collectives": {
            kind: found.to_json() for kind, found in traffic(program.text, devices).items()
        },
        "waits": work.waits,
        "kernels": work.kernels,
        "flops": program.flops,
        "kernel_bytes": round(moved),
        "compiler_estimate_ms": 1e3 * work.cycles / machine.clock if is_estimated else None,
        "roofline_ms": {"arithmetic": arithmetic, "memory": memory_time},
    }
