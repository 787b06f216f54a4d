"""Evaluation batches that are kept once they are decoded, as far as a budget of memory goes.

A training evaluates the same images again and again. What is kept are the uint8 batches as they
are delivered, from the first one on, so a later pass is the same to the bit.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from avit_jax.data.example import Source
from avit_jax.data.pipeline import Batch, eval_batches

logger = logging.getLogger(__name__)

GB = 10**9


class EvalBatches:
    """Passes over one split, as `eval_batches` makes them.

    Args:
        source: of the split.
        gigabytes: of 1e9 bytes, that may be kept in this process; 0 keeps nothing.
        settings: further arguments of `eval_batches`.
    """

    def __init__(self, source: Source, gigabytes: float, settings: Mapping[str, Any]) -> None:
        self._source, self._settings = source, settings
        self._budget = gigabytes * GB
        self._kept: list[Batch] = []
        self._bytes, self._is_full = 0, False

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one pass; what no earlier pass has kept is decoded."""
        if not self._budget:
            yield from eval_batches(self._source, **self._settings)
            return
        if not self._kept:
            self._say_what_is_kept()
        first = len(self._kept)
        yield from self._kept[:first]
        decoded = eval_batches(self._source, first=first, **self._settings)
        with contextlib.closing(decoded):
            for number, batch in enumerate(decoded, first):
                self._keep(number, batch)
                yield batch

    def _keep(self, number: int, batch: Batch) -> None:
        size = sum(array.nbytes for array in batch.values())
        self._is_full = self._is_full or self._bytes + size > self._budget
        if not self._is_full and number == len(self._kept):
            self._kept.append(batch)
            self._bytes += size

    def _say_what_is_kept(self) -> None:
        images = -(-len(self._source) // self._settings.get("hosts", 1))
        needed = images * self._settings["image_size"] ** 2 * 3
        logger.info(
            "evaluation images take %s bytes, of which at most %s are kept in memory "
            "(config.data.eval_cache)",
            f"{needed:,}",
            f"{min(needed, int(self._budget)):,}",
        )
