"""A JAX device for each processor core, decided while it can be: before JAX starts.

This is the one place that decides it, and docs/performance/cpu.md has what it was measured by.
Training is never asked: a run resumes bit-identically only on the same number of devices.
"""

from __future__ import annotations

import logging
import math
import os
import pkgutil
from collections.abc import Mapping
from importlib import import_module, metadata, util

import jax

from avit_jax.errors import UserError
from avit_jax.runtime.cores import usable_cores

logger = logging.getLogger(__name__)

VARIABLE = "JAX_NUM_CPU_DEVICES"
FLAG = "--xla_force_host_platform_device_count"  # the older way to say it, in XLA_FLAGS
# What a device must have to do for a batch, in dense multiply-adds (1e9). Two devices are faster
# with the 10 of 16 images in DeiT-T's sizes, and slower with the 0.2 and 1.6 of 32 and 256 digits.
LEAST_WORK = 2.0
THREADS = "NPROC"  # of XLA, which all CPU devices share; there are as many as devices at least


def largest_share(images: int, cores: int) -> int:
    """The most devices, one to a core at most, among which a batch divides evenly."""
    return max(n for n in range(1, max(1, min(images, cores)) + 1) if images % n == 0)


def is_left_open(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether nobody has said how many CPU devices there are, and JAX will compute on a CPU.

    Of several processes somebody has thought.
    """
    platforms = environment.get("JAX_PLATFORMS") or getattr(jax.config, "jax_platforms", None)
    on_cpu = will_be_used({"JAX_PLATFORMS": platforms or ""})
    is_said = jax.config.jax_num_cpu_devices >= 0 or FLAG in environment.get("XLA_FLAGS", "")
    return on_cpu and not is_said and not jax.distributed.is_initialized()


def will_be_used(environment: Mapping[str, str]) -> bool:
    """Whether JAX computes on a CPU in a process with this environment.

    Without JAX_PLATFORMS that is where no accelerator's JAX is installed: whether there is an
    accelerator JAX knows only once it has started.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    return platforms.split(",")[0] == "cpu" if platforms else not _accelerators_installed()


def cores_for_jax(environment: Mapping[str, str] = os.environ) -> int:
    """Cores that JAX may keep busy: those that the process may use, or as many as NPROC says."""
    said = environment.get(THREADS, "")
    return min(usable_cores(), int(said)) if said.isdecimal() and int(said) else usable_cores()


def share(
    images: int, gmacs: float = math.inf, environment: Mapping[str, str] = os.environ
) -> int | None:
    """Lets so many devices share each batch as suit it and the cores, where that is left open.

    Args:
        images: of a batch.
        gmacs: of an image, dense; all devices together stay one where they would have too little
            to do.
        environment: of this process.

    Returns:
        Their number; `None` where it stays as somebody has set it, or as JAX has it.

    Raises:
        RuntimeError: JAX has started.
    """
    if not is_left_open(environment):
        return None
    devices = largest_share(images, cores_for_jax(environment))
    if devices == 1 or images * gmacs / devices < LEAST_WORK:
        return None
    jax.config.update("jax_num_cpu_devices", devices)
    logger.info("%d cores share each batch; JAX_NUM_CPU_DEVICES=1 leaves it to one device", devices)
    return devices


def use_every_core(batch_size: int = 32) -> int:
    """Lets JAX treat processor cores as devices that share the images of a batch, in this process.

    The command line does so by itself where it is faster; Python decides for the whole process, so
    it has to be asked: `avit_jax.use_every_core(32)` before the first array is made. On
    accelerators, or where JAX_NUM_CPU_DEVICES, XLA_FLAGS or `jax.config` say how many devices there
    are, nothing happens.

    Args:
        batch_size: of the batches that will be put through, `config.inference.batch_size`.

    Returns:
        How many devices there are now.

    Raises:
        UserError: JAX has started already, or a batch of no image.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(
            f"batch_size is {batch_size!r}: write a whole number of images, at least 1."
        )
    try:
        share(batch_size)
    except RuntimeError as error:
        raise UserError(
            "JAX has started already, and its devices are fixed then: call use_every_core before "
            "anything makes an array, or set JAX_NUM_CPU_DEVICES before Python starts."
        ) from error
    return jax.device_count()


def _accelerators_installed() -> bool:
    """Whether JAX would look for a GPU or TPU when it starts."""
    found = util.find_spec("jax_plugins")
    modules = pkgutil.iter_modules(import_module("jax_plugins").__path__) if found else ()
    entries = metadata.entry_points(group="jax_plugins")
    return any(True for _ in modules) or bool(entries) or util.find_spec("libtpu") is not None
