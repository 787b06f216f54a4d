"""Faults of JAX releases that give wrong numbers, and what switches them off.

JAX reads its flags when it starts, so this has to come before the first array is made.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from importlib.metadata import version

# jaxlib 0.10.2 hands sums on CPUs to YNNPACK, which gets those after products of more than 32,768
# rows wrong (jax #39103). 0.10.0, 0.10.1, 0.11.1 and 0.12 do not.
WRONG_SUMS = "0.10.2"
WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type="


def avoid(environment: MutableMapping[str, str] = os.environ, jaxlib: str | None = None) -> None:
    """Adds to XLA_FLAGS what the installed jaxlib needs to compute correctly.

    Args:
        environment: of this process.
        jaxlib: its version; that of the installed one if unset.
    """
    given = environment.get("XLA_FLAGS", "")
    is_wrong = (jaxlib or version("jaxlib")) == WRONG_SUMS
    if is_wrong and WITHOUT_YNNPACK.rstrip("=") not in given:
        environment["XLA_FLAGS"] = f"{given} {WITHOUT_YNNPACK}".strip()
