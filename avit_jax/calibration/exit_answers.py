"""What every exit of a model says about the calibration images, each of which goes to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from avit_jax.data.mix import normalise
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import platform_of, replicated, shard_batch
from avit_jax.types import DialSettings, ExitAnswers


def answers_of(
    model: Model, params: Params, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh
) -> Callable[[DialSettings], ExitAnswers]:
    """A function from settings of the method, with which no image leaves, to what all exits say.

    Args:
        model: with several exits.
        params: on the mesh.
        batches: with `image`, `label` and `valid`, for every call anew.
        mesh: of this process's devices.
    """
    placed = model.on(platform_of(mesh))

    def step(params: Params, images: Array, settings: DialSettings) -> dict[str, Any]:
        output = placed.apply(params, normalise(images), settings=settings)
        return {"logits": output.exits, "gmacs": placed.gmacs_by_exit(output)}

    compiled = jax.jit(step, out_shardings=replicated(mesh))

    def answers(settings: DialSettings) -> ExitAnswers:
        found: dict[str, list[np.ndarray]] = {"logits": [], "gmacs": []}
        labels = []
        for batch in batches:
            images = shard_batch({"image": batch["image"]}, mesh)["image"]
            said = jax.device_get(compiled(params, images, settings))
            labels.append(batch["label"][batch["valid"]])
            for name, parts in found.items():
                parts.append(said[name][:, batch["valid"]])
        logits, gmacs = (np.concatenate(parts, axis=1) for parts in found.values())
        return ExitAnswers(logits, np.concatenate(labels), gmacs.astype(np.float64))

    return answers
