"""What the shown images have in common, as figures: a few numbers per image, and their sums.

Images are looked at one batch at a time; only these rows stay in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from avit_jax.viz.look import Looked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one image.

    Attributes:
        name: of the file or record.
        label: its class, or `None` where nobody knows.
        answer: class with the highest probability.
        confidence: that probability, 0..1.
        mean_depth: layers per token.
        gmacs: multiply-adds in units of 1e9.
        depth_counts: tokens that went through 1, 2, ..., L layers, int `[L]`.
        live: share of the tokens computed in each layer, `[L]`.
    """

    name: str
    label: int | None
    answer: int
    confidence: float
    mean_depth: float
    gmacs: float
    depth_counts: np.ndarray
    live: np.ndarray


def row(looked: Looked) -> Row:
    """The figures of one image."""
    layers = np.arange(1, len(looked.live) + 1)
    return Row(
        name=looked.name,
        label=looked.label,
        answer=looked.answer,
        confidence=looked.confidence,
        mean_depth=float(looked.depth.mean()),
        gmacs=looked.gmacs,
        depth_counts=(looked.depth[:, None] == layers).sum(0),
        live=looked.live.mean(1),
    )


def summarise(rows: Sequence[Row], class_names: Sequence[str]) -> dict[str, Any]:
    """Figures over all images.

    Returns:
        `images` (count), `mean_depth` (layers per token), `gmacs` (mean), `depth_histogram` (share
        of the tokens that went through 1, 2, ..., L layers), `live` (share of the tokens computed
        in each layer: `mean`, `least` and `most` over the images), `labelled` (images whose class
        is known), `top1` (share of those that are answered right, `None` where there is none) and
        `classes` (of those classes: `name`, `images`, `mean_depth`; shallowest first).
    """
    live = np.stack([one.live for one in rows])
    counts = np.sum([one.depth_counts for one in rows], 0, dtype=np.float64)
    labelled = [one for one in rows if one.label is not None]
    classes = []
    for label in sorted({one.label for one in labelled}):
        depths = [one.mean_depth for one in labelled if one.label == label]
        name, mean = class_names[label], float(np.mean(depths))
        classes.append({"name": name, "images": len(depths), "mean_depth": mean})
    right = [one.label == one.answer for one in labelled]
    return {
        "images": len(rows),
        "mean_depth": float(np.mean([one.mean_depth for one in rows])),
        "gmacs": float(np.mean([one.gmacs for one in rows])),
        "depth_histogram": (counts / max(counts.sum(), 1.0)).tolist(),
        "live": {"mean": live.mean(0), "least": live.min(0), "most": live.max(0)},
        "labelled": len(labelled),
        "top1": float(np.mean(right)) if right else None,
        "classes": sorted(classes, key=lambda one: one["mean_depth"]),
    }
