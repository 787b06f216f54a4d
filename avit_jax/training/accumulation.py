"""Gradients of a large batch as the mean over microbatches, of which one is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import batch_sharding
from avit_jax.training.loss import RowsFound


def accumulated(gradient: Callable, count: int, mesh: Mesh) -> Callable:
    """Mean gradients and logs over `count` microbatches, and whether there was room for all.

    Microbatch i takes rows i, i + count, ...: every device keeps its own rows, nothing moves.

    Args:
        gradient: of `loss.loss_function`, with its value.
        count: of microbatches, which divides the images of every device.
        mesh: of the devices.
    """

    def cut(rows: Array) -> Array:
        return rows.reshape(-1, count, *rows.shape[1:]).swapaxes(0, 1)

    def over_microbatches(
        params: Params, data: tuple[Array, Array], key: Array, progress: Array
    ) -> tuple[Params, dict[str, Array], RowsFound | None]:
        def body(sums: Any, inputs: Any):
            index, images, targets = inputs
            images = jax.lax.with_sharding_constraint(images, batch_sharding(mesh))
            drawn = jax.random.fold_in(key, index)
            (_, (logged, room)), grads = gradient(params, images, targets, drawn, progress)
            return jax.tree.map(jnp.add, sums, (grads, logged)), room

        inputs = (jnp.arange(count), *map(cut, data))
        shapes = jax.eval_shape(lambda: gradient(params, inputs[1][0], inputs[2][0], key, progress))
        (_, (logged, _)), grads = shapes
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (grads, logged))
        sums, room = jax.lax.scan(body, zeros, inputs)
        if room is not None:
            room = RowsFound(fits=room.fits.all(), live_rows=room.live_rows.max(0))
        return *jax.tree.map(lambda leaf: leaf / count, sums), room

    return over_microbatches
