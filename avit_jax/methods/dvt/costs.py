"""Multiply-adds that compact cascades really run, padding included."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.methods.dvt.exit_sizes import exit_plan, image_sizes, packed, ready_at_once
from avit_jax.models import costs
from avit_jax.types import Usage


def compact_gmacs(model: Any, usage: tuple[Usage, ...], plan: Plan) -> float:
    """See `base.Model.compact_gmacs`."""
    batch = usage[0].tokens.shape[1]
    filled = filled_up(batch, plan.images)
    groups = -(-batch // plan.images)
    total = 0.0
    for index, used in enumerate(usage):
        sizes = image_sizes(model, index, plan, filled // groups)
        every = jax.tree.map(
            lambda ran: np.pad(np.asarray(ran), ((0, 0), (0, filled - batch), (0, 0))), used
        )
        for group in np.split(np.arange(filled), groups):
            there = group[every.tokens[:, group].any((0, 2))]
            total += sum(
                _block_gmacs(model, index, every, block, plan) for block in _blocks(there, sizes)
            )
    return total


def _blocks(images: np.ndarray, sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Images as they run together, -1 being one that does not exist."""
    blocks = []
    for first in range(0, len(images), sizes[-1]):
        block = images[first : first + sizes[-1]]
        size = next(size for size in sizes if size >= len(block))
        blocks.append(np.pad(block, (0, size - len(block)), constant_values=-1))
    return blocks


def _block_gmacs(model: Any, index: int, used: Usage, images: np.ndarray, plan: Plan) -> float:
    own = model.exits[index]
    ran = jax.tree.map(lambda part: part[:, images] & (images >= 0)[:, None], used)
    shown = () if index == len(model.exits) - 1 else model.shown
    sized = exit_plan(own.shape, plan, len(images))
    # Of the images, as many are made ready for their blocks as fill whole parts.
    size = ready_at_once(model, plan, len(images))
    ready = size * -(-int((images >= 0).sum()) // size)
    beyond = ready * costs.resizing_beyond(own.shape)
    saved = (len(images) - ready) * (costs.embedding(own.shape) - own.shape.embedding_macs)
    if own.packs_exits and not packed(model, plan):
        run = costs.dense_gmacs(own.shape, own.layers) * len(images)
    else:
        run = own.compact_exit_gmacs(ran, sized, shown=shown)
    return run + (beyond - saved) / costs.GIGA
