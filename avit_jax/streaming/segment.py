"""A part of a model at whose end images may be finished: what a method cuts itself into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import struct
from jax import Array

from avit_jax.models.functional import Params
from avit_jax.types import Output


@struct.dataclass(kw_only=True)
class Passed:
    """What a segment says about `b` images.

    Attributes:
        output: of the whole model, were each image finished here: `logits`, `usage` of all stages
            and `exits`, as of `execution.image_groups.of_images`.
        leaves: `[b]` bool, images that are finished; of the last segment all.
        state: pytree of arrays `[b, ...]`, all that the next segment needs of the others.
    """

    output: Output
    leaves: Array
    state: Any


# A pure function of the parameters, a state and which of its images exist, `[b]` bool. The state of
# the first segment is the normalised images `[b, H, W, 3]`; images see nothing of each other.
Segment = Callable[[Params, Any, Array], Passed]
