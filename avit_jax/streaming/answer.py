"""What a stream says about one image, and the image on its way."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from concurrent.futures import Future

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a stream says about one image.

    Attributes:
        values: of this image, under the names that the stream's `read` gives them; empty where the
            image did not get into the model.
        segment: by which the image left, from 0: of a cascade its exit; `None` likewise.
        seconds: from when the image was due until its answer was there.
        error: why there is no answer, or `None`.
    """

    values: Mapping[str, np.ndarray]
    segment: int | None
    seconds: float
    error: str | None = None

    @property
    def logits(self) -> np.ndarray | None:
        """`[C]` float32; `None` without any."""
        return self.values.get("logits")

    @property
    def gmacs(self) -> float:
        """Multiply-adds that the image needed, in 1e9; NaN without an answer."""
        return float(self.values.get("gmacs", math.nan))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """An image on its way.

    Attributes:
        image: uint8 or floating-point `[S, S, 3]`.
        due: when it ought to have been taken, on the stream's clock.
        future: of its `Answer`.
    """

    image: np.ndarray
    due: float
    future: Future[Answer] = dataclasses.field(default_factory=Future)
