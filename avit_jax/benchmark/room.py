"""Contenders that a device has no memory for are left out and named, and the race goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


class NoRoom(Exception):
    """Something that a race cannot do without did not fit."""


def ran_out(error: Exception) -> bool:
    """Whether an error of JAX, PyTorch or our own says that a device's memory is full."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return "RESOURCE_EXHAUSTED" in str(error)
    if isinstance(error, NoRoom):
        return True
    return type(error).__name__ == "OutOfMemoryError"  # PyTorch's, which may not be installed


class Room:
    """What fits into the memory of the device, found by trying.

    Attributes:
        left_out: names of what did not, in order.
    """

    def __init__(self):
        self.left_out: list[str] = []

    def attempt(self, name: str, action: Callable[[], Any]) -> Any | None:
        """The result of `action`, computed; `None` where it found no memory, which is noted."""
        try:
            return jax.block_until_ready(action())
        except Exception as error:
            if not ran_out(error):
                raise
        self.left_out.append(name)
        print(f"{name} left out: out of memory", flush=True)
        return None
