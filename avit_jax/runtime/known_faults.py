"""Faults of JAX releases that give wrong numbers, and what switches them off.

JAX reads its flags when it starts, so this has to come before the first array is made.
"""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from importlib.metadata import version

logger = logging.getLogger(__name__)

# jaxlib 0.10.2 hands sums on CPUs to YNNPACK, which gets those after products of more than 32,768
# rows wrong (jax #39103). 0.10.0, 0.10.1, 0.11.1 and 0.12 do not.
WRONG_SUMS = "0.10.2"
WITHOUT_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type="


def avoid(environment: MutableMapping[str, str] = os.environ, jaxlib: str | None = None) -> None:
    """Adds to XLA_FLAGS what the installed jaxlib needs to compute correctly.

    Where JAX has already started, it is too late for this process, and a warning says so.

    Args:
        environment: of this process.
        jaxlib: its version; that of the installed one if unset.
    """
    given = environment.get("XLA_FLAGS", "")
    is_wrong = (jaxlib or version("jaxlib")) == WRONG_SUMS
    if is_wrong and WITHOUT_YNNPACK.rstrip("=") not in given:
        environment["XLA_FLAGS"] = f"{given} {WITHOUT_YNNPACK}".strip()
        if _has_started():
            logger.warning(
                "JAX has made arrays before avit_jax was imported, and jaxlib %s sums wrongly on "
                "CPUs then: import avit_jax first, or install another jaxlib.",
                WRONG_SUMS,
            )


def _has_started() -> bool:
    """Whether JAX has read its flags, for which it has no public function."""
    from jax._src import xla_bridge  # asked of the one release above alone

    return xla_bridge.backends_are_initialized()
