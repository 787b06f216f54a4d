"""How much a stream holds and for how long."""

from __future__ import annotations

import dataclasses
import numbers

from avit_jax import validators
from avit_jax.errors import UserError

# Behind every segment: what waits, and what two programs in flight write.
BATCHES_IN_A_QUEUE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes of a stream, see `methods/streamable.py`.

    Attributes:
        batch_size: images of every program, on each device.
        capacity: images that wait in front of the first segment.
        max_wait: seconds that an image waits in one queue for others, or `None`: for ever.

    Raises:
        UserError: numbers that cannot be.
    """

    batch_size: int
    capacity: int
    max_wait: float | None

    def __post_init__(self):
        for name in ("batch_size", "capacity"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
                raise UserError(f"{name} is {value!r}: write a whole number of images, at least 1.")
        if self.max_wait is not None:
            validators.not_negative(self, "max_wait")
