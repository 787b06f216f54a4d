"""What measured times depend on: threads, allocator, processor, versions of packages."""

from __future__ import annotations

import codecs
import logging
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import jax

from avit_jax.errors import UserError
from avit_jax.runtime.cores import usable_cores

logger = logging.getLogger(__name__)

# glibc hands temporaries above 32 MB back to the kernel and faults them in again at every call.
MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:"
    "glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456:glibc.malloc.arena_max=1"
)


PLAIN = {"│": "|", "─": "-", "–": "-", "—": "-", "×": "x", "±": "+-", "²": "2"} | dict.fromkeys(
    "┌┐└┘├┤", "+"
)
MAX_THREADS = 16  # that decode images, unless more are asked for


def use_own_dtypes() -> None:
    """Undoes settings of JAX under which programs have other dtypes than a config says, or none."""
    wanted = {
        "jax_enable_x64": False,
        "jax_numpy_dtype_promotion": "standard",
        "jax_numpy_rank_promotion": "allow",
    }
    for name, value in wanted.items():
        found = getattr(jax.config, name)
        if found != value:
            logger.info("%s is %s: set to %s, for the config says the dtypes", name, found, value)
            jax.config.update(name, value)


def compute_on_cpu() -> None:
    """Leaves accelerators alone, whatever is installed for them or JAX_PLATFORMS says."""
    jax.config.update("jax_platforms", "cpu")


def require_device() -> None:
    """Starts JAX.

    Raises:
        UserError: there is no device of the kind that JAX_PLATFORMS asks for.
    """
    try:
        jax.devices()
    # What is missing is said by RuntimeError, AssertionError or an error of a plug-in.
    except Exception as error:
        wanted = os.environ.get("JAX_PLATFORMS")
        why = " ".join(str(error).split("(set JAX_PLATFORMS")[0].split()).rstrip(". ")
        raise UserError(
            f"JAX finds no device with JAX_PLATFORMS={wanted!r}"
            f"{f' ({why[:200]})' if why else ''}: install JAX for that device (pip install "
            "'avit_jax[gpu]' or '[tpu]'), or leave JAX_PLATFORMS unset."
        ) from error


def print_anything(*streams: TextIO) -> None:
    """Lets streams print text that their encoding lacks, drawn with the characters it has."""

    def plainly(error: UnicodeError) -> tuple[str, int]:
        lacking = error.object[error.start : error.end]
        return "".join(PLAIN.get(character, "?") for character in lacking), error.end

    codecs.register_error("avit_jax.plainly", plainly)
    for stream in streams:
        if hasattr(stream, "reconfigure"):  # what replaces it in a notebook or test may lack it
            stream.reconfigure(errors="avit_jax.plainly")


def start_again_prepared(command: Sequence[str]) -> None:
    """Replace this process by `command` with the environment variables that measurements need.

    They set the number of threads and the allocator, alike for all that is compared, and are read
    when a process starts, so they cannot be set from within. Where all are set, nothing happens.
    """
    threads = str(usable_cores())
    wanted = {
        "NPROC": threads,  # XLA's
        "OMP_NUM_THREADS": threads,  # PyTorch's
        # Idle threads of PyTorch sleep; otherwise they would take the cores in XLA's turns.
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
    }
    if platform.libc_ver()[0] == "glibc":
        wanted["GLIBC_TUNABLES"] = MALLOC
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if missing:
        settings = ", ".join(
            name if name == "GLIBC_TUNABLES" else f"{name}={value}"  # its value is a screen of text
            for name, value in missing.items()
        )
        print(f"starting again with {settings}", flush=True)
        os.execve(command[0], list(command), os.environ | missing)


def environment(packages: Sequence[str] = ("jax", "flax")) -> dict[str, str]:
    """What the measured times depend on, by name: machine, threads, allocator and versions."""
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
    """The processor's name, as far as the operating system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
