"""How the images of one batch come to be, wherever that happens: in a thread or another process.

Images are decoded straight into the array of their batch: none is copied to be stacked.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from avit_jax.data.augment import Augment, eval_image, train_image
from avit_jax.data.example import BadExample, Source, read_example
from avit_jax.data.shared_batch import Layout
from avit_jax.errors import UserError

Batch = dict[str, np.ndarray]

MAX_SUBSTITUTES = 64  # examples tried in place of an unreadable one


@dataclasses.dataclass(frozen=True)
class LoadTrainBatch:
    """From the drawn examples of a batch to the batch; top-level, so that it pickles."""

    source: Source
    image_size: int
    augment: Augment
    seed: int

    def layout(self, size: int) -> Layout:
        """Shapes and types of a batch of `size` examples."""
        return _layout(size, self.image_size)

    def fill(self, batch: Batch, number: int, rows: range) -> None:
        """Decodes some rows of batch `number`, counted over all hosts, by what they `request`."""
        for row in rows:
            # Row r of batch i has a position of its own in the run, whatever the hosts.
            position = number * len(batch["requested"]) + row
            rng = np.random.Generator(np.random.Philox(key=[self.seed, position]))
            self._fill_row(batch, row, int(batch["requested"][row]), rng)

    def _fill_row(self, batch: Batch, row: int, wanted: int, rng: np.random.Generator) -> None:
        count = len(self.source)
        tries = min(count, MAX_SUBSTITUTES)
        for offset in range(tries):
            index = (wanted + offset) % count
            try:
                example = read_example(self.source, index)
                batch["image"][row] = train_image(
                    example.image, rng, size=self.image_size, augment=self.augment
                )
            except BadExample as error:
                reason = error
                continue
            batch["label"][row] = example.label
            batch["index"][row] = index
            return
        raise UserError(
            f"{tries} examples in a row from {self.source.describe(wanted)} on are unreadable, "
            f"the last because it {reason}; repair or replace the data"
        )


@dataclasses.dataclass(frozen=True)
class LoadEvalBatch:
    """From positions in the padded split to the batch; top-level, so that it pickles."""

    source: Source
    image_size: int
    augment: Augment

    def layout(self, size: int) -> Layout:
        """Shapes and types of a batch of `size` examples."""
        flags = {name: ((size,), np.dtype(bool)) for name in ("valid", "bad")}
        return _layout(size, self.image_size) | flags

    def fill(self, batch: Batch, number: int, rows: range) -> None:
        """Decodes some rows by the positions `requested`; those past the end become padding."""
        for row in rows:
            position = int(batch["requested"][row])
            exists = position < len(self.source)
            if not exists:
                batch["requested"][row] = -1
            batch["index"][row] = batch["requested"][row]
            batch["valid"][row] = exists and self._fill_row(batch, row, position)
            batch["bad"][row] = exists and not batch["valid"][row]
            if not batch["valid"][row]:
                batch["image"][row], batch["label"][row] = 0, 0

    def _fill_row(self, batch: Batch, row: int, position: int) -> bool:
        try:
            example = read_example(self.source, position)
            batch["image"][row] = eval_image(
                example.image, size=self.image_size, augment=self.augment
            )
        except BadExample:
            return False
        batch["label"][row] = example.label
        return True


def _layout(size: int, image_size: int) -> Layout:
    return {
        "image": ((size, image_size, image_size, 3), np.dtype(np.uint8)),
        "label": ((size,), np.dtype(np.int32)),
        "index": ((size,), np.dtype(np.int64)),
        "requested": ((size,), np.dtype(np.int64)),
    }
