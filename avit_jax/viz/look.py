"""What a model did with each image: its answer, what ran in which layer, and what that cost.

Every method is read through `Output` alone, so whatever skips tokens, heads or halves of blocks
shows up here without being named.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from avit_jax.data import pipeline
from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.bad_examples import reason_bad
from avit_jax.data.example import BadExample, read_example
from avit_jax.data.image_selection import Selection
from avit_jax.data.mix import normalise
from avit_jax.errors import NOT_FINITE
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import per_image, tokens_run
from avit_jax.models import costs, skippable_parts
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import batch_sharding
from avit_jax.viz.patches import on_grid

SHARP = 448  # pixels; photographs are shown at the first multiple of the model's image size from it
LARGEST_BATCH = 64
ARRAYS = ("depth", "live", "gmacs_until", "heads", "halves", "exit_answers", "exit_gmacs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Looked:
    """One image and everything worth showing of it.

    Attributes:
        name: of the file or record.
        photograph: uint8 `[S, S, 3]`, what the model saw, in more pixels where the file has them.
        label: its class, or `None` where nobody knows.
        answer: class with the highest probability.
        confidence: that probability, 0..1.
        depth: layers that each token went through, int `[N]`.
        live: bool `[L, N]`, tokens computed in each layer.
        gmacs: multiply-adds of the whole image, in units of 1e9.
        gmacs_until: the same after 1, 2, ..., L layers, `[L]`; what belongs to no layer is in each.
        heads: bool `[L, H]`, heads that ran, or `None` where the method does not choose.
        halves: bool `[L, 2]` (attention, MLP), those that ran, or `None` likewise.
        exit: the exit that answered, from 0; `None` for models with one.
        exit_answers: `[E]`, the class if each exit had to answer at the latest, or `None` likewise.
        exit_gmacs: `[E]`, the multiply-adds up to each exit, or `None` likewise.
        exit_maps: layers that each patch went through inside each exit, `E` arrays int `[g, g]` on
          the exit's own grid, all 0 for an exit that did not run; `None` likewise.
        exit_layers: layers of each exit, `E` numbers; `None` likewise.
    """

    name: str
    photograph: np.ndarray
    label: int | None
    answer: int
    confidence: float
    depth: np.ndarray
    live: np.ndarray
    gmacs: float
    gmacs_until: np.ndarray
    heads: np.ndarray | None = None
    halves: np.ndarray | None = None
    exit: int | None = None
    exit_answers: np.ndarray | None = None
    exit_gmacs: np.ndarray | None = None
    exit_maps: tuple[np.ndarray, ...] | None = None
    exit_layers: tuple[int, ...] | None = None

    @property
    def ran(self) -> dict[str, np.ndarray]:
        """Everything that the method may leave out, `[L, K]` bool by `skippable_parts.PARTS`."""
        found = {"tokens": self.live, "heads": self.heads, "halves": self.halves}
        return {name: part for name, part in found.items() if part is not None}


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An image that could not be used, and why ("cannot be ...")."""

    name: str
    reason: str


def look(
    model: Model, params: Params, selection: Selection, mesh: Mesh, *, augment: Augment, batch: int
) -> Iterator[Looked | Unreadable]:
    """Yield what became of each image, in order; one batch is held at a time.

    Args:
        model: any method.
        params: on the mesh.
        selection: the images.
        mesh: of the run.
        augment: holds the evaluation crop.
        batch: images that go through the model together, at most.
    """
    devices = mesh.size
    batch = devices * math.ceil(min(batch, LARGEST_BATCH, len(selection)) / devices)
    size = model.shape.image_size
    sharp = size * math.ceil(SHARP / size)
    see = jax.jit(_see, static_argnums=0)
    layers = tuple(stage.depth for stage in model.stages)
    batches = pipeline.eval_batches(selection, batch_size=batch, image_size=size, augment=augment)
    with contextlib.closing(batches):
        for rows in batches:
            pixels = jax.device_put(rows["image"], batch_sharding(mesh))
            seen = jax.device_get(see(model, params, pixels))
            for row in np.flatnonzero(rows["index"] >= 0):  # the others only fill up the batch
                yield _looked(
                    selection,
                    jax.tree.map(lambda values, row=row: values[row], seen | rows),
                    layers=layers,
                    size=sharp,
                    augment=augment,
                )


def _see(model: Model, params: Params, images: Array) -> dict[str, Any]:
    """The arrays behind `Looked`, the batch in front."""
    output = model.apply(params, normalise(images))
    said = per_image(model, output)
    stages = [skippable_parts.ran(usage) for usage in output.usage]
    ran = {
        name: jnp.concatenate([stage[name] for stage in stages])
        for name in stages[0]
        if name != "tokens"  # of which there may be more in a later stage
    }
    ran["live"] = tokens_run(model, output)
    costs_by_layer = map(costs.per_layer, model.stages, output.usage)
    layers = jnp.concatenate(list(costs_by_layer)) / costs.GIGA
    of_exits = {}
    if output.exits is not None:
        answers, gmacs = output.exits.argmax(-1), model.gmacs_by_exit(output)
        of_exits = {"exit": said.exit, "exit_answers": answers.T, "exit_gmacs": gmacs.T}
        of_exits["exit_maps"] = tuple(
            on_grid(usage.tokens.sum(0), shape.grid)
            for shape, usage in zip(model.stages, output.usage, strict=True)
        )
    return of_exits | {
        "answer": said.class_index,
        "confidence": said.confidence,
        "depth": said.token_depth,
        "gmacs": said.gmacs,
        "gmacs_until": (said.gmacs - layers.sum(0) + jnp.cumsum(layers, 0)).T,
        **{name: jnp.moveaxis(part, 0, 1) for name, part in ran.items()},
    }


def _looked(
    selection: Selection,
    row: dict[str, Any],
    *,
    layers: tuple[int, ...],
    size: int,
    augment: Augment,
) -> Looked | Unreadable:
    """One row of a batch and of what the model did with it; reads the photograph again, sharper."""
    index = int(row["index"])
    name = selection.describe(index)
    if row["bad"]:
        return Unreadable(name, reason_bad(selection, index))
    if not np.isfinite(row["confidence"]):
        return Unreadable(name, NOT_FINITE)
    try:
        image = read_example(selection, index).image
        photograph = eval_image(image, size=size, augment=augment)
    except BadExample as error:  # gone since the batch was made
        return Unreadable(name, str(error))
    return Looked(
        name=name,
        photograph=photograph,
        label=int(row["label"]) if selection.labelled[index] else None,
        answer=int(row["answer"]),
        confidence=float(row["confidence"]),
        gmacs=float(row["gmacs"]),
        exit=int(row["exit"]) if "exit" in row else None,
        exit_maps=row.get("exit_maps"),
        exit_layers=layers if "exit" in row else None,
        **{part: np.array(row[part]) for part in ARRAYS if part in row},
    )
