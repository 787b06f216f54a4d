"""Multiply-adds that compact A-ViT really runs, padding included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.models import image_rows
from avit_jax.models.costs import GIGA, attention, embedding, last_block, mixing, mlp, readout
from avit_jax.models.norms import is_over_tokens
from avit_jax.models.shape import Shape
from avit_jax.types import Usage


def compact_gmacs(
    shape: Shape, usage: Usage, plan: Plan, *, layers: int, shown: Sequence[str] = ()
) -> float:
    """What `live_tokens.compact` runs for a batch on one device, in units of 1e9.

    Args:
        shape: of the network.
        usage: of the batch.
        plan: of the program.
        layers: that run.
        shown: what an exit of a cascade hands over, see `Call.shown`. If anything, the last block
            runs for all live tokens; packed layers form relations beside those that they mix by.
    """
    counts = np.asarray(usage.tokens).sum(-1)[:layers]
    batch = counts.shape[1]
    filled = filled_up(batch, plan.images)
    counts = np.pad(counts, ((0, 0), (0, filled - batch)))
    whole = attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens)
    all_whole = bool(shown) or shape.averages
    whole_layers = layers if all_whole else layers - 1
    total = 0.0
    for group in np.split(counts, -(-batch // plan.images), axis=1):
        # Until the first token of the group halts, layers run as in dense execution.
        untouched = int((group == shape.num_tokens).all(1).cumprod().sum())
        untouched = min(untouched, whole_layers)
        total += untouched * group.shape[1] * whole
        if untouched == layers - 1 and not all_whole:  # the last one, too
            total += group.shape[1] * last_block(shape, shape.num_tokens)
            continue
        for layer in range(untouched, layers):
            if layer == whole_layers:
                total += _executed_last(shape, group[layer], plan)
            else:
                total += _executed_layer(shape, group[layer], plan, "relations" in shown)
    return (total + filled * (embedding(shape) + readout(shape))) / GIGA


def static_gmacs(shape: Shape, usage: Usage, capacities: tuple[int, ...], *, layers: int) -> float:
    """What `live_rows.run` runs for a batch on one device, in units of 1e9.

    Linear layers run on all rows of a buffer, attention on as many tokens of each image as it has,
    by the kernel that leaves out the others, or on all places of an image without one. The kernel
    for TPUs computes for a few lengths, and all queries of the last layer. A norm over an image's
    tokens asks for the last layer's whole attention half.
    """
    batch, num_tokens = usage.tokens.shape[1:]
    counts, capacities = np.full((layers, batch), num_tokens), capacities[:layers]
    if shape.fused_attention or shape.ragged_attention:
        counts = np.asarray(usage.tokens.sum(-1))[:layers]
    if shape.ragged_attention:
        lengths = np.asarray([0, *image_rows.sizes(image_rows.aligned(num_tokens))])
        counts = lengths[np.searchsorted(lengths, counts)]
    dim, front = shape.embed_dim, shape.num_answer_tokens
    rows, asking = np.asarray(capacities), counts.astype(np.float64)
    halves = 4.0 * rows * dim**2 + mixing(shape, asking, asking).sum(1)
    total = halves[:-1].sum() + mlp(shape, rows[:-1]).sum()
    total += batch * (embedding(shape) + readout(shape))
    if shape.averages:
        return (total + halves[-1] + mlp(shape, rows[-1])) / GIGA
    queries = image_rows.aligned(front) if shape.ragged_attention else front
    last = 2.0 * capacities[-1] * dim**2 + mixing(shape, queries, counts[-1]).sum()
    if shape.ragged_attention:
        last += capacities[-1] * dim**2
    last += batch * 2.0 * front * dim**2
    if is_over_tokens(shape.norm):
        last = halves[-1]
    return (total + last + batch * mlp(shape, front)) / GIGA


def _executed_layer(shape: Shape, live: np.ndarray, plan: Plan, relations: bool) -> float:
    """A packed layer, which forms the products of all pairs once more to show them as relations."""
    size, padded, rows, _ = _padded(live, plan)
    total = _executed_attention(shape, live, plan) + mlp(shape, rows)
    return total + (float(size * (padded**2).sum() * shape.embed_dim) if relations else 0.0)


def _executed_attention(shape: Shape, live: np.ndarray, plan: Plan) -> float:
    """The attention half of a packed layer."""
    size, padded, rows, _ = _padded(live, plan)
    return 4.0 * rows * shape.embed_dim**2 + size * mixing(shape, padded, padded).sum()


def _executed_last(shape: Shape, live: np.ndarray, plan: Plan) -> float:
    """The last layer, where only answer tokens are wanted."""
    dim, front, (size, padded, rows, answers) = (
        shape.embed_dim, shape.num_answer_tokens, _padded(live, plan)
    )  # fmt: skip
    if is_over_tokens(shape.norm):
        return _executed_attention(shape, live, plan) + answers * mlp(shape, front)
    fixed = answers * (front * 2.0 * dim * dim + mlp(shape, front))
    return 2.0 * rows * dim * dim + size * mixing(shape, front, padded).sum() + fixed


def _padded(live: np.ndarray, plan: Plan) -> tuple[int, np.ndarray, float, int]:
    """Images whose attention runs together, its lengths, rows that run, and images that end."""
    size = min(plan.attention_images, len(live))
    padded = plan.padded_lengths(live, size)
    if len(live) == 1:  # it runs whole at one length, see `single_image.py`
        return size, padded, padded.sum(), len(padded)
    return size, padded, plan.rows_run(live.sum()), len(live)
