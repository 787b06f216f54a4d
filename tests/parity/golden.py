"""Recorded files, and how far our numbers are from theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.types import Output

FOLDER = Path(__file__).parent.parent / "golden"
BORDER = 1e-5  # a decision so close to its threshold may fall on either side in reordered sums


class Difference(NamedTuple):
    """Largest absolute difference of one quantity, and what is allowed."""

    name: str
    found: float
    allowed: float


def load(file: str) -> dict[str, np.ndarray]:
    """The arrays of a recorded file, such as "avit/tiny_b1"."""
    with np.load(FOLDER / f"{file}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def group(golden: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays below a prefix, without it."""
    return {name[len(prefix) :]: a for name, a in golden.items() if name.startswith(prefix)}


def difference(name: str, ours: jax.Array, recorded: np.ndarray, allowed: float) -> Difference:
    """Largest absolute difference; what is no number in both is none."""
    return Difference(name, _largest(ours, recorded), allowed)


def gradients(
    name: str, ours: Mapping, recorded: Mapping[str, np.ndarray], *, negligible: float = 1e-7
) -> Difference:
    """Largest difference relative to the largest entry of each array, beyond a negligible one.

    Some gradients are 0 (a bias on keys moves all scores of a row alike), and rounding is all that
    there is.
    """
    relative = [
        max(0.0, _largest(ours[key], array) - negligible) / max(np.abs(array).max(), 1e-30)
        for key, array in recorded.items()
    ]
    return Difference(name, float(max(relative)), 1e-4)


def compacted(
    model: Model, params: dict, images: np.ndarray, masked: Output
) -> Iterator[Difference]:
    """Compact execution against masked, in groups that are filled up, at sizes that pad."""
    plan = Plan(
        images=3,
        row_sizes=(8, 24),
        attention_images=2,
        lengths=(4, model.shape.num_tokens),
        dense_images=2,
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    sure = np.asarray(masked.aux["margin"]) > BORDER
    assert sure.any(), "every image has a decision on the border: nothing can be compared"
    found = model.compile(params, batch_size=len(images), plan=plan, mesh=mesh)(images)
    yield difference("compact, logits", found.logits[sure], masked.logits[sure], 1e-5)
    pairs = zip(jax.tree.leaves(found.usage), jax.tree.leaves(masked.usage), strict=True)
    unequal = max(_largest(ours[:, sure], theirs[:, sure]) for ours, theirs in pairs)
    yield Difference("compact, decisions", unequal, 0.0)


def _largest(ours: jax.Array, recorded: np.ndarray) -> float:
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    assert ours.shape == recorded.shape, (ours.shape, recorded.shape)
    both_nan = np.isnan(ours) & np.isnan(recorded)  # upstream's KL of a batch of one
    return float(np.max(np.where(both_nan, 0.0, np.abs(ours - recorded))))
