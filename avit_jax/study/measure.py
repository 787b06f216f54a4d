"""What a trained cell costs and answers, as it learnt to and at the study's budgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from avit_jax.calibration.dialled_model import DialledModel
from avit_jax.checkpoints.budgets import Budget
from avit_jax.checkpoints.operating_points import LEARNT
from avit_jax.data.mix import normalise
from avit_jax.experiment import Experiment
from avit_jax.losses import classification
from avit_jax.methods.per_image import finest_stage, per_image
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import platform_of, replicated, shard_batch
from avit_jax.types import DialSettings
from avit_jax.viz.depth_maps import smoothness


def measure(experiment: Experiment, budgets: Iterable[Budget]) -> dict[str, dict[str, Any]]:
    """Figures of a trained cell on its evaluation split, by operating point.

    The dial is set on calibration images, as `--mode calibrate --budget` does it; budgets that it
    cannot meet are left out.

    Args:
        experiment: that was trained.
        budgets: to set it to, besides its own point.

    Returns:
        See `figures_of`, with the `settings` of the method at each point.
    """
    params, model = experiment.weights().params, experiment.model
    points: dict[str, DialSettings | None] = {LEARNT: None}
    if model.dial() is not None:
        dialled = DialledModel(experiment, params)
        points[LEARNT] = dialled.settings(0.0)
        found = dialled.positions(dialled.reachable(budgets))
        points |= {name: dialled.settings(position) for name, (position, _) in found.items()}
    images = _images(experiment, params, list(points.values()))
    return {
        name: figures_of(one, finest_stage(model).grid) | {"settings": settings}
        for (name, settings), one in zip(points.items(), images, strict=True)
    }


def figures_of(images: Mapping[str, np.ndarray], grid: int) -> dict[str, Any]:
    """Figures of a split from those of its images.

    Args:
        images: see `_images`.
        grid: patches along a side.

    Returns:
        `images` (count), `top1` (share), `cross_entropy` (nats), `gmacs` (per image), `mean_depth`
        (layers per token), `roughness` of the depth maps (how much neighbours differ, over any two
        patches), and `right`, a text of a 1 for each image that was answered rightly and a 0 for
        each other, in the order of the split.
    """
    patches = images["token_depth"][:, -grid * grid :].reshape(-1, grid, grid)
    means = {name: float(images[name].mean()) for name in ("cross_entropy", "gmacs")}
    return {
        "images": len(images["right"]),
        "top1": float(images["right"].mean()),
        **means,
        "mean_depth": float(images["token_depth"].mean()),
        "roughness": smoothness(patches)["of_any_two"],
        "right": "".join("1" if one else "0" for one in images["right"]),
    }


def _images(
    experiment: Experiment, params: Params, points: Sequence[DialSettings | None]
) -> list[dict[str, np.ndarray]]:
    """What each image comes to at each point: `right`, `cross_entropy`, `gmacs`, `token_depth`."""
    mesh = experiment.mesh
    model = experiment.model.on(platform_of(mesh))

    def step(
        params: Params, batch: dict[str, jax.Array], settings: DialSettings | None
    ) -> dict[str, jax.Array]:
        output = model.apply(params, normalise(batch["image"]), settings=settings)
        targets = classification.soft_targets(batch["label"], model.shape.num_classes)
        said = per_image(model, output)
        return {
            "right": classification.hits(output.logits, batch["label"], k=1),
            "cross_entropy": classification.cross_entropy(output.logits, targets),
            "gmacs": said.gmacs,
            "token_depth": said.token_depth,
        }

    compiled = jax.jit(step, out_shardings=replicated(mesh))
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in points]
    for batch in experiment.eval_batches():
        placed = shard_batch({name: batch[name] for name in ("image", "label")}, mesh)
        for settings, parts in zip(points, found, strict=True):
            said = jax.device_get(compiled(params, placed, settings))
            parts.append({name: value[batch["valid"]] for name, value in said.items()})
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in found
    ]
