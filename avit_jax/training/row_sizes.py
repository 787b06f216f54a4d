"""How many rows a training on live tokens has: a few sizes, each of which is compiled once.

A training starts with room for every token. Where all batches since the last evaluation would have
fitted into much less, it goes on with less; where a batch finds no room, with more again. Both
depend on nothing but the batches, so a training that is resumed takes the same sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from avit_jax.execution.row_capacities import that_hold

MOST_SIZES = 6
WORTH_COMPILING = 0.9  # of the rows of a size that is there; for less gain there is no new one
HEADROOM = 1.02  # over the most live rows so far: those of coming batches differ


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowSizes:
    """Sizes there are, and the one in use.

    Attributes:
        images: that a device has at a time; sizes for other numbers mean nothing.
        sizes: rows of each layer, in as many sizes, the largest first, which holds every token.
        current: index of the one in use.
    """

    images: int
    sizes: tuple[tuple[int, ...], ...]
    current: int = 0

    @classmethod
    def everything(cls, *, images: int, depth: int, num_tokens: int) -> Self:
        """What a training starts with: room for all tokens."""
        return cls(images=images, sizes=((images * num_tokens,) * depth,))

    @property
    def capacities(self) -> tuple[int, ...]:
        """Rows of each layer in the size in use."""
        return self.sizes[self.current]

    @property
    def share(self) -> float:
        """Rows in use, of those for all tokens."""
        return sum(self.capacities) / sum(self.sizes[0])

    def larger(self) -> Self:
        """After a batch that found no room: with the next larger size."""
        if not self.current:
            raise AssertionError("a batch found no room where every token has a row")
        return dataclasses.replace(self, current=self.current - 1)

    def fitted(self, live_rows: np.ndarray) -> Self:
        """At an evaluation: with the least size that holds what has been seen.

        Args:
            live_rows: `[L]`, the most live rows of one device in a step since the last evaluation;
                all 0 where there was no step.
        """
        if not np.any(live_rows):
            return self
        # More than everything are those of a device that had more images, before this resumed.
        live_rows = np.minimum(live_rows, self.sizes[0])
        wanted = that_hold(np.asarray(live_rows) * HEADROOM, self.sizes[0][0])
        holding = [size for size in self.sizes if np.all(np.less_equal(live_rows, size))]
        least, sizes = min(holding, key=sum), self.sizes
        if len(sizes) < MOST_SIZES and sum(wanted) <= WORTH_COMPILING * sum(least):
            least, sizes = wanted, tuple(sorted((*sizes, wanted), key=sum, reverse=True))
        return dataclasses.replace(self, sizes=sizes, current=sizes.index(least))

    def to_json(self) -> dict[str, Any]:
        """For `of_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        """What a checkpoint says."""
        sizes = tuple(tuple(size) for size in stored["sizes"])
        return cls(images=stored["images"], sizes=sizes, current=stored["current"])
