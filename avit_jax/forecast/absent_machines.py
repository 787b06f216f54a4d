"""Compiling for GPUs and TPUs that are not there: their compilers run on a plain CPU machine.

Both are plug-ins of JAX, one to an environment because a process holds one of them: the extras
`forecast-gpu` and `forecast-tpu`, with Python 3.12. Any program can be compiled: of any model,
method and execution, for inference or training.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import util
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from avit_jax.errors import UserError

# An H100, as XLA describes devices; sizes from NVIDIA's data sheet and CUDA's tables.
H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
clock_rate_ghz: 1.98 device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
registers_per_block_limit: 65536 } platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 } device_description_str: "NVIDIA H100 80GB HBM3"
"""
TPUS = ("v4", "v5e", "v5p", "v6e")
FLAT = ("v5e", "v6e")  # whose torus has two dimensions
PACKAGES = {"tpu": "libtpu", "gpu": "jax_cuda13_plugin"}


class Compiled(NamedTuple):
    """A program for a machine that is not there.

    Attributes:
        text: of the compiled program, see `compiled_text.work_of`.
        seconds: that compiling took.
        memory: `memory_analysis()`, bytes on one device.
    """

    text: str
    seconds: float
    memory: Any


def platform_of(target: str) -> str:
    """What JAX calls the platform of "gpu" or of a TPU's name; raises UserError for others."""
    if target == "gpu":
        return "gpu"
    if target not in TPUS:
        raise UserError(f"target {target!r} is unknown: write gpu or one of {', '.join(TPUS)}.")
    return "tpu"


def device_of(target: str) -> jax.Device:
    """One device of an absent machine.

    Args:
        target: "gpu", which is an H100, or one of `TPUS`.

    Raises:
        UserError: unknown target, or its compiler is not installed or does not start.
    """
    if platform_of(target) == "gpu":
        return devices_of("gpu")[0]
    return devices_of(target, "2x2" if target in FLAT else "2x2x1")[0]


def devices_of(target: str, layout: str = "1") -> tuple[jax.Device, ...]:
    """All devices of an absent machine.

    Args:
        target: as in `device_of`.
        layout: of TPUs their torus, such as "16x16"; of GPUs how many there are, in one host.

    Raises:
        UserError: as `device_of`, or the compiler knows no such layout.
    """
    platform = platform_of(target)
    if util.find_spec(PACKAGES[platform]) is None:
        raise UserError(
            f"the compiler for {target} is not installed: in an environment of its own with Python "
            f"3.12, pip install -e '.[forecast-{platform}]'."
        )
    try:
        if platform == "tpu":
            # Of libtpu: there is no TPU to ask, and nobody to share one with.
            os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
            os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
            os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
            os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
            # Both cores of a v4 chip are one device, as JAX has them; v5p's compiler knows that.
            one_of_both = {"chip_config_name": "megacore"} if target == "v4" else {}
            described = topologies.get_topology_desc(
                f"{target}:{layout}", platform="tpu", **one_of_both
            )
        else:
            import jax_plugins.xla_cuda13  # noqa: F401 - registers the plug-in

            described = topologies.get_topology_desc(
                "", platform="cuda", target_config=H100, topology=f"1x1x{layout}"
            )
    except (ImportError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the compiler for {target} does not start for the layout {layout} "
            f"({str(error)[:160]}): write one that is offered, such as v5e:4x4, v4:2x2x2 or "
            f"h100:8, or install again: pip install -e '.[forecast-{platform}]'."
        ) from error
    return tuple(described.devices)


def options_for(platform: str) -> dict[str, Any]:
    """Of the compiler: there is no GPU to try kernels on."""
    return {"xla_gpu_autotune_level": 0} if platform == "gpu" else {}


def compile_for(target: str, function: Callable, *arguments: Any) -> Compiled:
    """Compile a pure function for one device of a target, see `device_of`.

    Args:
        target: "gpu" or one of `TPUS`.
        function: of the arguments.
        *arguments: trees of arrays or of their shapes and dtypes; nothing is computed.
    """
    place = jax.sharding.SingleDeviceSharding(device_of(target))
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), arguments
    )
    began = time.perf_counter()
    options = options_for(platform_of(target))
    program = jax.jit(function).lower(*placed).compile(compiler_options=options)
    return Compiled(program.as_text(), time.perf_counter() - began, program.memory_analysis())
