"""The numbers of a report: a few for each image, and their means over images, layers and classes.

Images pass through the model one batch at a time; only these numbers are kept in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from avit_jax.viz import difficulty
from avit_jax.viz.look import Looked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The numbers of one image.

    Attributes:
        name: of the file or record.
        label: its class, or `None` where that is not known.
        answer: class with the highest probability.
        confidence: that probability, 0..1.
        mean_depth: layers per token.
        gmacs: multiply-adds in units of 1e9.
        depth_counts: tokens that went through 0, 1, ..., L layers, int `[L + 1]`.
        ran: share of the tokens computed in each layer, `[L]`, as `tokens`; where the method
          chooses among them also of `heads`, and whether each of the `halves` ran, `[L, 2]`.
        exit: the exit that answered, from 0; `None` for models with one.
        exit_answers: `[E]`, the class if each exit had to answer at the latest, or `None` likewise.
        exit_gmacs: `[E]`, multiply-adds up to each exit, or `None` likewise.
        exit_layers: layers of each exit, or `None` likewise.
    """

    name: str
    label: int | None
    answer: int
    confidence: float
    mean_depth: float
    gmacs: float
    depth_counts: np.ndarray
    ran: dict[str, np.ndarray]
    exit: int | None = None
    exit_answers: np.ndarray | None = None
    exit_gmacs: np.ndarray | None = None
    exit_layers: tuple[int, ...] | None = None

    @property
    def kept(self) -> dict[str, float]:
        """Share of each part that ran, over all layers."""
        return {name: float(share.mean()) for name, share in self.ran.items()}

    @property
    def right(self) -> bool | None:
        """Whether the answer is right, or `None` where the class is not known."""
        return None if self.label is None else self.label == self.answer


def row(looked: Looked) -> Row:
    """The numbers of one image, from what the model did with it."""
    layers = np.arange(len(looked.live) + 1)
    ran = {name: used if name == "halves" else used.mean(1) for name, used in looked.ran.items()}
    return Row(
        name=looked.name,
        label=looked.label,
        answer=looked.answer,
        confidence=looked.confidence,
        mean_depth=float(looked.depth.mean()),
        gmacs=looked.gmacs,
        depth_counts=(looked.depth[:, None] == layers).sum(0),
        ran=ran,
        exit=looked.exit,
        exit_answers=looked.exit_answers,
        exit_gmacs=looked.exit_gmacs,
        exit_layers=looked.exit_layers,
    )


def summarise(
    rows: Sequence[Row], class_names: Sequence[str], *, gmacs_dense: float
) -> dict[str, Any]:
    """The numbers of all images together.

    Args:
        rows: of the images, at least one.
        class_names: of the model.
        gmacs_dense: cost of an image with nothing skipped.

    Returns:
        `images` (count), `mean_depth` (layers per token), `gmacs` (mean), `kept` (share of each
        part that ran: `tokens`, and `heads` and `halves` if the method chooses among them),
        `gmacs_dense`, `depth_histogram` (share of the tokens that went through 1, 2, ..., L layers;
        what is missing to 1 went through none), `live` (share of the tokens computed in each layer:
        `mean`, `least` and `most` over the images), `kept_per_layer` (mean share of `heads`,
        `attention` and `mlp` that ran in each layer; empty if the method does not choose),
        `labelled` (images whose class is known), `top1` (share of those that are answered right,
        `None` where there is none), `classes` (of those classes: `name`, `images`, `mean_depth`,
        `gmacs`, `kept`, and `stopped` as below; shallowest first), `exits` (of models with several,
        else `None`: the shares of the images `stopped` at each, its `layers`, and if each had to
        answer at the latest, `gmacs` and `top1`, `None` where no class is known), `difficulty` (see
        `difficulty.relation`) and `rows` (the numbers of each image, with its name and classes;
        its `exit` counts from 0).
    """
    live = np.stack([one.ran["tokens"] for one in rows])
    counts = np.sum([one.depth_counts for one in rows], 0, dtype=np.float64)
    labelled = [one for one in rows if one.label is not None]
    right = [one.right for one in labelled]
    classes = [
        {
            "name": class_names[label],
            "images": sum(one.label == label for one in labelled),
            **_means([one for one in labelled if one.label == label]),
            **_stopped([one for one in labelled if one.label == label]),
        }
        for label in sorted({one.label for one in labelled})
    ]
    return {
        "images": len(rows),
        **_means(rows),
        "gmacs_dense": gmacs_dense,
        "depth_histogram": (counts / max(counts.sum(), 1.0))[1:].tolist(),
        "live": {"mean": live.mean(0), "least": live.min(0), "most": live.max(0)},
        "kept_per_layer": _kept_per_layer(rows),
        "labelled": len(labelled),
        "top1": float(np.mean(right)) if right else None,
        "classes": sorted(classes, key=lambda one: one["mean_depth"]),
        "exits": _exits(rows, labelled),
        "difficulty": difficulty.relation(
            np.array([one.confidence for one in rows]),
            np.array([one.gmacs / gmacs_dense for one in rows]),
            [one.right for one in rows],
        ),
        "rows": [_plain(one, class_names) for one in rows],
    }


def _means(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean depth, cost and shares over images."""
    return {
        "mean_depth": float(np.mean([one.mean_depth for one in rows])),
        "gmacs": float(np.mean([one.gmacs for one in rows])),
        "kept": {name: float(np.mean([one.kept[name] for one in rows])) for name in rows[0].kept},
    }


def _stopped(rows: Sequence[Row]) -> dict[str, Any]:
    """Share of images that each exit answered for, `stopped` `[E]`; nothing where there is one."""
    if rows[0].exit_answers is None:
        return {}
    exits = np.arange(len(rows[0].exit_answers))
    return {"stopped": np.mean([one.exit == exits for one in rows], 0)}


def _exits(rows: Sequence[Row], labelled: Sequence[Row]) -> dict[str, Any] | None:
    if rows[0].exit_answers is None:
        return None
    right = [one.exit_answers == one.label for one in labelled]
    return _stopped(rows) | {
        "layers": rows[0].exit_layers,
        "gmacs": np.mean([one.exit_gmacs for one in rows], 0),
        "top1": np.mean(right, 0) if right else None,
    }


def _kept_per_layer(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Mean share of the heads, and of the images whose attention and MLP ran, `[L]` each."""
    means = {name: np.mean([one.ran[name] for one in rows], 0) for name in rows[0].ran}
    result = {"heads": means["heads"]} if "heads" in means else {}
    if "halves" in means:
        result |= {"attention": means["halves"][:, 0], "mlp": means["halves"][:, 1]}
    return result


def _plain(row: Row, class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": None if row.label is None else class_names[row.label],
        "answer": class_names[row.answer],
        "confidence": row.confidence,
        "mean_depth": row.mean_depth,
        "right": row.right,
        "gmacs": row.gmacs,
        "kept": row.kept,
        "exit": row.exit,
    }
