"""Bytes that arrays take on one device, from their shapes and places."""

from __future__ import annotations

import math
from typing import Any

import jax

from avit_jax.forecast.programs import Training


def bytes_on_device(tree: Any) -> int:
    """Of all arrays of a tree of `ShapeDtypeStruct`s with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def held_between_steps(training: Training) -> dict[str, int]:
    """What a training holds on one device besides activations, by name."""
    state = training.state
    found = {
        "parameters": bytes_on_device(state.params),
        "optimiser": bytes_on_device(state.opt_state),
        "moving average": bytes_on_device(state.ema),
        "teacher": bytes_on_device(training.teacher),
        "batch": bytes_on_device(training.batch()),
    }
    return {name: size for name, size in found.items() if size}
