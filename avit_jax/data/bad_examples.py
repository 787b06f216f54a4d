"""Counts and names the examples that could not be read, and stops a run that has too many.

One bad file must not end a run at hour nine, but a broken disk must not pass for training data.
"""

import dataclasses
import logging
from typing import Self

import numpy as np

from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample, Source, read_example
from avit_jax.errors import UserError

logger = logging.getLogger(__name__)

MINIMUM_SEEN = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class BadExamples:
    """A tally over batches; `add` returns the next one and leaves this one as it is."""

    max_bad_share: float
    """The largest share of bad examples among those seen, 0..1; 0 stops at the first."""
    seen: int = 0
    bad: int = 0
    names: tuple[str, ...] = ()
    """What was bad, each once, in the order of appearance."""

    def add(self, batch: dict[str, np.ndarray], source: Source) -> Self:
        """Returns the tally with a batch of `train_batches` or `eval_batches` added.

        Logs each bad example once, by name and with its reason. The share counts from 1,000
        examples on (or the whole split, if smaller): the first file alone cannot exceed it.

        Raises:
            UserError: the share of bad examples is above `max_bad_share`.
        """
        requested = batch["requested"]
        is_bad = batch.get("bad", requested != batch["index"])
        names = list(self.names)
        for index in np.unique(requested[is_bad]).tolist():
            name = source.describe(index)
            if name not in names:
                names.append(name)
                logger.warning("left out bad example %s: it %s", name, reason_bad(source, index))
        seen = self.seen + int((requested >= 0).sum())
        bad = self.bad + int(is_bad.sum())
        if bad > self.max_bad_share * max(seen, min(MINIMUM_SEEN, len(source))):
            raise UserError(
                f"{bad} of {seen} examples of {source.name} are unreadable, more than "
                f"data.max_bad_share = {self.max_bad_share:g} allows ({_shorten(names)}); repair "
                "them or raise data.max_bad_share"
            )
        return dataclasses.replace(self, seen=seen, bad=bad, names=tuple(names))


def reason_bad(source: Source, index: int) -> str:
    """Returns why an example cannot be used, found by reading it again."""
    try:
        decode(read_example(source, index).image)
    except BadExample as error:
        return str(error)
    return "was unreadable when it was drawn, but can be read now"


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
