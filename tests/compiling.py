"""How tests compile: quickly, for eight simulated devices; so do the programs that they start."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from importlib import metadata

QUICKLY = "JAX_DISABLE_MOST_OPTIMIZATIONS"
# XLA's older way to turn fused operations into machine code takes half the time of the present one,
# and is gone from jaxlib 0.12, which ends at a flag that it does not know.
OLDER_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
HAS_OLDER_EMITTERS = tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11)


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set what JAX reads when it is first used; what is set already stays."""
    environment.setdefault(QUICKLY, "true")
    flags = ["--xla_force_host_platform_device_count=8"]
    if HAS_OLDER_EMITTERS and environment[QUICKLY].lower() in ("1", "t", "true", "y", "yes", "on"):
        flags.append(OLDER_EMITTERS)
    environment.setdefault("XLA_FLAGS", " ".join(flags))


def flags_for(devices: int) -> str:
    """`XLA_FLAGS` of a program that has so many devices and otherwise compiles as the tests do."""
    return re.sub(r"(device_count=)\d+", rf"\g<1>{devices}", os.environ["XLA_FLAGS"])
