"""Multiply-adds that compact A-ViT really runs, padding included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.models import image_rows
from avit_jax.models.costs import GIGA, attention, embedding, last_block, mixing, mlp, readout
from avit_jax.models.shape import Shape
from avit_jax.types import Usage


def compact_gmacs(shape: Shape, usage: Usage, plan: Plan, *, shown: Sequence[str] = ()) -> float:
    """What `live_tokens.compact` runs for a batch on one device, in units of 1e9.

    Args:
        shape: of the network.
        usage: of the batch.
        plan: of the program.
        shown: what an exit of a cascade hands over, see `Call.shown`. If anything, the last block
            runs for all live tokens; packed layers form relations beside those that they mix by.
    """
    counts = np.asarray(usage.tokens).sum(-1)
    batch = counts.shape[1]
    filled = filled_up(batch, plan.images)
    counts = np.pad(counts, ((0, 0), (0, filled - batch)))
    whole = attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens)
    all_whole = bool(shown) or shape.averages
    whole_layers = shape.depth if all_whole else shape.depth - 1
    total = 0.0
    for group in np.split(counts, -(-batch // plan.images), axis=1):
        # Until the first token of the group halts, layers run as in dense execution.
        untouched = int((group == shape.num_tokens).all(1).cumprod().sum())
        untouched = min(untouched, whole_layers)
        total += untouched * group.shape[1] * whole
        if untouched == shape.depth - 1 and not all_whole:  # the last one, too
            total += group.shape[1] * last_block(shape, shape.num_tokens)
            continue
        for layer in range(untouched, shape.depth):
            if layer == whole_layers:
                total += _executed_last(shape, group[layer], plan)
            else:
                total += _executed_layer(shape, group[layer], plan, "relations" in shown)
    return (total + filled * (embedding(shape) + readout(shape))) / GIGA


def static_gmacs(shape: Shape, usage: Usage, capacities: tuple[int, ...]) -> float:
    """What `live_rows.run` runs for a batch on one device, in units of 1e9.

    Linear layers run on all rows of a buffer, attention on as many tokens of each image as it has,
    by the kernel that leaves out the others, or on all places of an image without one. The kernel
    for TPUs computes for a few lengths, and all queries of the last layer.
    """
    batch, num_tokens = usage.tokens.shape[1:]
    counts = np.full((shape.depth, batch), num_tokens)
    if shape.fused_attention or shape.ragged_attention:
        counts = np.asarray(usage.tokens.sum(-1))
    if shape.ragged_attention:
        lengths = np.asarray([0, *image_rows.sizes(image_rows.aligned(num_tokens))])
        counts = lengths[np.searchsorted(lengths, counts)]
    dim, front = shape.embed_dim, shape.num_answer_tokens
    whole_layers = shape.depth if shape.averages else shape.depth - 1
    rows = np.asarray(capacities[:whole_layers])
    asking = counts[:whole_layers].astype(np.float64)
    whole = 4.0 * rows.sum() * dim**2 + mlp(shape, rows).sum()
    whole += mixing(shape, asking, asking).sum() + batch * (embedding(shape) + readout(shape))
    if shape.averages:
        return whole / GIGA
    queries = image_rows.aligned(front) if shape.ragged_attention else front
    last = 2.0 * capacities[-1] * dim**2 + mixing(shape, queries, counts[-1]).sum()
    if shape.ragged_attention:
        last += capacities[-1] * dim**2
    last += batch * (2.0 * front * dim**2 + mlp(shape, front))
    return (whole + last) / GIGA


def _executed_layer(shape: Shape, live: np.ndarray, plan: Plan, relations: bool) -> float:
    """A packed layer, which forms the products of all pairs once more to show them as relations."""
    dim, (size, padded, rows, _) = shape.embed_dim, _padded(live, plan)
    total = 4.0 * rows * dim * dim + mlp(shape, rows) + size * mixing(shape, padded, padded).sum()
    return total + (float(size * (padded**2).sum() * dim) if relations else 0.0)


def _executed_last(shape: Shape, live: np.ndarray, plan: Plan) -> float:
    """The last layer, where only answer tokens are wanted."""
    dim, front, (size, padded, rows, answers) = (
        shape.embed_dim, shape.num_answer_tokens, _padded(live, plan)
    )  # fmt: skip
    fixed = answers * (front * 2.0 * dim * dim + mlp(shape, front))
    return 2.0 * rows * dim * dim + size * mixing(shape, front, padded).sum() + fixed


def _padded(live: np.ndarray, plan: Plan) -> tuple[int, np.ndarray, float, int]:
    """Images whose attention runs together, its lengths, rows that run, and images that end."""
    size = min(plan.attention_images, len(live))
    padded = plan.padded_lengths(live, size)
    if len(live) == 1:  # it runs whole at one length, see `single_image.py`
        return size, padded, padded.sum(), len(padded)
    return size, padded, plan.rows_run(live.sum()), len(live)
