"""Processes that work on their own and compare notes now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from avit_jax.errors import UserError

Result = TypeVar("Result")


def share(total: int) -> range:
    """The part of `total` things in a row that is this process's: a contiguous one.

    The parts of all processes, one behind the other, are the whole, and differ by one at most.
    """
    index, count = jax.process_index(), jax.process_count()
    return range(index * total // count, (index + 1) * total // count)


def gather(values: np.ndarray) -> np.ndarray:
    """The `values` of all processes, with a leading axis; all of them call it at the same point."""
    if jax.process_count() == 1:
        return values[None]
    return np.asarray(multihost_utils.process_allgather(values))


def in_all_or_none(prepare: Callable[[], Result]) -> Result:
    """Runs `prepare` in every process; where it fails in one, it fails in all, and none waits.

    Raises:
        UserError: from `prepare`, here or in another process.
    """
    result, error = None, None
    try:
        result = prepare()
    except UserError as raised:
        error = raised
    failed = np.flatnonzero(gather(np.asarray(error is not None)))
    if error is not None:
        raise error
    if failed.size:
        raise UserError(f"process {failed[0]} could not begin: read its message.")
    return result
