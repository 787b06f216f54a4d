"""What a measurement depends on: threads and allocator, the same for all sides, and names."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import jax

# glibc hands temporaries above 32 MB back to the kernel and faults them in again at every call.
MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:"
    "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456:glibc.malloc.arena_max=1"
)


def start_again_prepared(command: Sequence[str]) -> None:
    """Replace this process by `command` with threads and allocator set, unless they are set.

    They are read when a process starts, so they cannot be set from within.
    """
    threads = str(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count())
    wanted = {
        "NPROC": threads,  # of XLA
        "OMP_NUM_THREADS": threads,  # of PyTorch, which sleeps when idle with the next two:
        "OMP_WAIT_POLICY": "PASSIVE",  # its threads would else take the cores in XLA's turns
        "KMP_BLOCKTIME": "0",
    }
    if platform.libc_ver()[0] == "glibc":
        wanted["GLIBC_TUNABLES"] = MALLOC
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if missing:
        settings = " ".join(f"{name}={value}" for name, value in missing.items())
        print(f"starting again with {settings}", flush=True)
        os.execve(command[0], list(command), os.environ | missing)


def environment(packages: Sequence[str] = ("jax", "flax")) -> dict[str, str]:
    """Names of everything that the figures depend on."""
    device = jax.devices()[0]
    return {
        "processor": processor(),
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "threads": os.environ.get("NPROC", "as the system has it"),
        "malloc": os.environ.get("GLIBC_TUNABLES", "as the system has it"),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def processor() -> str:
    """Its name, as well as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
