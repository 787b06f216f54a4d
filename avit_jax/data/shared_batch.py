"""Batches in memory that processes share, without a name that could outlive them.

The memory is an open file that no folder lists, so it ends with the last process that holds it,
however that process ends; and it is not under /dev/shm, of which containers have 64 MB by default.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

ALIGNMENT = 64  # bytes: JAX takes over arrays of a CPU that begin at multiples, without a copy
Layout: TypeAlias = Mapping[str, tuple[tuple[int, ...], np.dtype]]  # shape and type of each array


class SharedBatch:
    """The memory of one batch, mapped into this process.

    Args:
        layout: of the batch.
        file: of another process's memory, which stays open; by default it is made here, zeroed.
    """

    def __init__(self, layout: Layout, file: int | None = None) -> None:
        self._layout = layout
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in layout.values()]
        aligned = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
        self._starts = np.cumsum([0, *aligned]).tolist()
        self.file = _nameless(self._starts[-1]) if file is None else file
        self._memory = mmap.mmap(self.file, self._starts[-1])

    def arrays(self, when_unused: Callable[[], object] | None = None) -> dict[str, np.ndarray]:
        """Returns the arrays of the batch; the memory stays mapped as long as one of them lives.

        Args:
            when_unused: called when the last of these arrays, and of views of them, has gone.
        """
        whole = np.frombuffer(self._memory, np.uint8)
        if when_unused is not None:
            # Views, and arrays of JAX that took them over, refer to the array that they came from.
            weakref.finalize(whole, when_unused).atexit = False
        arrays = {}
        for start, (name, (shape, dtype)) in zip(self._starts, self._layout.items(), strict=False):
            size = math.prod(shape) * dtype.itemsize
            arrays[name] = whole[start : start + size].view(dtype).reshape(shape)
        return arrays

    def close_file(self) -> None:
        """Closes the file once everyone has mapped it; the memory stays."""
        os.close(self.file)


def _nameless(size: int) -> int:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("avit_jax batch", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.truncate(file, size)
    return file
