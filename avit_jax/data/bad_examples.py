"""Counts and names the examples that could not be read, and stops a run that has too many.

A single bad file must not end a run after hours of training, but a broken disk must.
"""

import dataclasses
import logging
from typing import Self

import numpy as np

from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample, Source, read_example
from avit_jax.errors import UserError

logger = logging.getLogger(__name__)

MINIMUM_SEEN = 1000  # the share of bad examples is taken of at least so many
TOLERATED = 2  # different bad examples, whatever their share: a small split may have some too


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

        Logs each bad example once, by name and with its reason. Until 1,000 examples are seen (or
        the whole split, if smaller) the share is taken of so many. Two different examples may be
        bad in any case, unless `max_bad_share` is 0.

        Raises:
            UserError: more are bad, and their share is above `max_bad_share`.
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
        tolerated = TOLERATED if self.max_bad_share else 0
        share_of = max(seen, min(MINIMUM_SEEN, len(source)))
        if len(names) > tolerated and bad > self.max_bad_share * share_of:
            raise UserError(
                f"{bad} of {seen} examples of {source.name} are unreadable, more than "
                f"data.max_bad_share = {self.max_bad_share:g} allows ({_shorten(names)}); repair "
                "them or write a larger --config.data.max_bad_share, and start again to go on"
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
