"""The largest batch whose training step fits into the memory of a machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

TRIES = 3
HEADROOM = 0.97  # of the memory that is aimed at, for the compiler's own


@dataclasses.dataclass(frozen=True)
class Largest:
    """What was found.

    Attributes:
        batch_size: the largest that was compiled and fits; 0 if none does.
        memory: bytes on one device that it takes.
        tried: bytes by batch size; `None` where the compiler said that it does not fit.
    """

    batch_size: int
    memory: int
    tried: dict[int, int | None]

    def to_json(self) -> dict[str, Any]:
        """As it stands in `forecast.json`."""
        return dataclasses.asdict(self)


def largest_batch(
    needs: Callable[[int], int | None], *, known: dict[int, int | None], unit: int, memory: float
) -> Largest:
    """A straight line through two batch sizes, and its answer compiled.

    Args:
        needs: bytes on one device at a batch size, `None` where it does not fit.
        known: likewise, of what was compiled already: one batch size at least.
        unit: batch sizes are multiples of it.
        memory: bytes of one device.
    """
    tried = dict(known)

    def ask(size: int) -> None:
        tried[size] = needs(size)

    def that_fit() -> list[int]:
        return sorted(size for size, found in tried.items() if found and found <= memory)

    start = max(tried)
    if that_fit():
        ask(2 * start)
    while len(that_fit()) < 1 and min(tried) > unit:
        ask(max(unit, min(tried) // 2 // unit * unit))
    for _ in range(TRIES):
        measured = sorted(size for size, found in tried.items() if found)
        too_large = min((size for size in tried if size not in that_fit()), default=None)
        if not that_fit():
            break
        best = that_fit()[-1]
        if len(measured) > 1:
            low, high = measured[-2:]
            slope = max((tried[high] - tried[low]) / (high - low), 1.0)
            aimed = low + (memory * HEADROOM - tried[low]) / slope
        else:
            aimed = (best + too_large) / 2
        # Near a size that does not fit, half of what is left.
        if too_large is not None and aimed >= too_large:
            aimed = (best + too_large) / 2
        size = int(aimed // unit * unit)
        if size <= best or size in tried:
            break
        ask(size)
        if size in that_fit():
            break
    fitting = that_fit()
    best = fitting[-1] if fitting else 0
    return Largest(best, tried.get(best) or 0, dict(sorted(tried.items())))
