"""How live work of varying size is cut into a small set of static shapes."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np

from avit_jax import validators
from avit_jax.errors import UserError

# On a CPU, in token rows; docs/performance/cpu.md has the measurements.
_BLOCK = 1182  # large matrix products whose activations stay in the cache
_PACKED = 6304  # few blocks are the last, partly filled one of a group
_DENSE = 1576
_FUSED = 4096  # of all heads; from here XLA makes one program of a whole attention


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Static sizes of an inference program; whatever the sizes, the answers are the same.

    Attributes:
        images: images that are packed together, one such group after the other. Few keep the
            working set in the cache, many lose less in the last, partly filled block of rows.
        row_sizes: numbers of token rows that the linear layers are compiled for, ascending. Live
            rows are treated in blocks of the last size; what is left takes the smallest that fits.
            Single images that halt take one of `lengths` instead.
        attention_images: images whose attention is computed together, after sorting by size.
        lengths: numbers of tokens of an image that attention is compiled for, ascending; the last
            is the model's number of tokens.
        dense_images: images that dense execution treats together; `None`: all, however many.
        fused_attention: attention as one kernel of cuDNN's instead of einsums, on NVIDIA GPUs in
            bfloat16.
        ragged_attention: attention of dense and static execution to rows where they lie, by kernels
            for TPUs (`models/ragged_attention.py`); images then begin at multiples of 16 rows.
        unrolled: layers of dense and masked execution one after the other instead of a loop.
        packed_exits: within the exits of a cascade tokens that halt leave in compact execution;
            else they are masked there.
        capacities: places for tokens in each layer ("capped" execution), or `None`.
        static_rows: rows of one device's buffer in each layer ("static" execution; in each half of
            a layer where the method chooses halves), or `None` for those of the first batch. Of a
            cascade images on one device, for each exit behind the first.
    """

    images: int
    row_sizes: tuple[int, ...]
    attention_images: int
    lengths: tuple[int, ...]
    dense_images: int | None
    fused_attention: bool = False
    ragged_attention: bool = False
    unrolled: bool = False
    packed_exits: bool = False
    capacities: tuple[int, ...] | None = None
    static_rows: tuple[int, ...] | None = None

    def __post_init__(self):
        for name in ("row_sizes", "lengths", "capacities", "static_rows"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        validators.at_least(1, self, "images", "attention_images", prefix="plan.")
        validators.at_least(1, self, "dense_images", prefix="plan.", optional=True)
        for name in ("row_sizes", "lengths"):
            sizes = getattr(self, name)
            if not sizes or sizes[0] < 1 or any(np.diff(sizes) <= 0):
                raise UserError(
                    f"{name} of the plan are {list(sizes)}: write numbers above 0 that rise."
                )
        for name in ("capacities", "static_rows"):
            sizes = getattr(self, name)
            whole = all(isinstance(size, int | np.integer) and size >= 1 for size in sizes or ())
            if sizes == () or not whole:
                raise UserError(
                    f"{name} of the plan are {list(sizes)}: write whole numbers, each at least 1."
                )

    def check(self, *, num_tokens: int, depth: int) -> None:
        """Refuse a plan that was made for another model."""
        if self.lengths[-1] != num_tokens:
            raise UserError(
                f"the plan's lengths end with {self.lengths[-1]}, but the model has {num_tokens} "
                "tokens: calibrate again for this model and image size, or set "
                "config.inference.lengths."
            )
        if self.capacities is not None and len(self.capacities) != depth:
            raise UserError(
                f"the plan has {len(self.capacities)} capacities for a model of {depth} layers: "
                "calibrate again for this model, or set config.inference.capacities."
            )

    def to_dict(self) -> dict:
        """The plan as JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The plan that `to_dict` wrote, now or when plans had `head_sizes`, too."""
        return cls(**{name: value for name, value in values.items() if name != "head_sizes"})

    def rows_run(self, total: int) -> int:
        """Rows that the linear layers compute for `total` live ones, padding included."""
        full, rest = divmod(int(total), self.row_sizes[-1])
        tail = self.row_sizes[bisect.bisect_left(self.row_sizes, rest)] if rest else 0
        return full * self.row_sizes[-1] + tail

    def padded_lengths(self, counts: np.ndarray, size: int) -> np.ndarray:
        """Lengths that attention is computed for, float, of each group of `size` with any token.

        Args:
            counts: live tokens of each image, or of whatever else is attended to by itself.
            size: of those that are treated together, after sorting by size.
        """
        largest = np.sort(counts)[::-1][::size]
        lengths = np.asarray(self.lengths)
        return lengths[np.searchsorted(lengths, largest)][largest > 0].astype(np.float64)


def ladder(last: int, *, ratio: float, step: int = 16) -> tuple[int, ...]:
    """Multiples of `step` that grow by about `ratio`, up to `last`: little padding, few sizes."""
    sizes = [min(step, last)]
    while sizes[-1] < last:
        grown = max(sizes[-1] + step, step * math.ceil(sizes[-1] * ratio / step))
        sizes.append(grown if 1.1 * grown < last else last)
    return tuple(sizes)


def default_plan(
    num_tokens: int,
    batch_size: int,
    *,
    num_heads: int,
    platform: str | None = None,
    fused: bool = False,
    ragged: bool = False,
) -> Plan:
    """Sizes that do well without calibration.

    On a CPU blocks of rows keep the matrix products large and what they work on in the cache, and
    groups of several such blocks lose little in the last, partly filled one. Accelerators want all
    rows at once and few loops.

    Args:
        num_tokens: tokens N of an image.
        batch_size: images of a batch on one device.
        num_heads: heads H of an attention.
        platform: as JAX names it; the default backend's if unset.
        fused: whether a GPU has a kernel for the model's attention.
        ragged: whether static execution can run by the kernels for TPUs.
    """
    platform = platform or jax.default_backend()
    if platform == "cpu":
        images = min(batch_size, max(1, round(_PACKED / num_tokens)))
        # Eight of few images are padded to the busiest of nearly all.
        together = 8 if images >= 16 and 4 * num_heads * num_tokens < _FUSED else 4
        return Plan(
            images=images,
            row_sizes=ladder(min(_BLOCK, images * num_tokens), ratio=1.2),
            attention_images=min(together, images),
            lengths=ladder(num_tokens, ratio=1.2),
            dense_images=min(batch_size, max(1, round(_DENSE / num_tokens))),
        )
    rows = batch_size * num_tokens
    return Plan(
        fused_attention=fused and platform == "gpu",
        ragged_attention=ragged and platform == "tpu",
        unrolled=platform == "gpu",
        images=batch_size,
        row_sizes=ladder(rows, ratio=1.0, step=-(-rows // 16)),
        # The program holds a slice for each of them.
        attention_images=min(32, max(1, batch_size // 4)),
        lengths=ladder(num_tokens, ratio=1.2, step=16),
        dense_images=batch_size,
    )
