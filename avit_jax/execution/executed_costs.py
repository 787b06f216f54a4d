"""Multiply-adds that inference programs really run, padding included; `flops.py` has the terms."""

from __future__ import annotations

import jax
import numpy as np

from avit_jax.execution.loops import selected_groups
from avit_jax.execution.plan import Plan
from avit_jax.methods.adavit.compact import is_worth_it_whole
from avit_jax.models.backbone import Shape
from avit_jax.models.costs import (
    GIGA,
    attention,
    dense_inference_gmacs,
    embedding,
    inference_gmacs,
    last_attention,
    last_block,
    mlp,
    readout,
)
from avit_jax.types import Usage


def on_devices(function, shape: Shape, usage: Usage, plan: Plan, *, devices: int) -> float:
    """`function(shape, usage, plan)` summed over devices that share the images evenly."""
    parts = [
        jax.tree.map(
            lambda array, index=index: np.split(np.asarray(array), devices, 1)[index], usage
        )
        for index in range(devices)
    ]
    return sum(function(shape, part, plan) for part in parts)


def dense_gmacs(shape: Shape, usage: Usage, plan: Plan) -> float:
    """What `dense.dense` runs for a batch on one device, in units of 1e9."""
    return dense_inference_gmacs(shape) * filled_up(usage.tokens.shape[1], plan.dense_images)


def halting_gmacs(shape: Shape, usage: Usage, plan: Plan) -> float:
    """What `halting_tokens.compact` runs for a batch on one device, in units of 1e9."""
    counts = np.asarray(usage.tokens).sum(-1)
    batch = counts.shape[1]
    filled = filled_up(batch, plan.images)
    counts = np.pad(counts, ((0, 0), (0, filled - batch)))
    whole = attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens)
    total = 0.0
    for group in np.split(counts, -(-batch // plan.images), axis=1):
        # Until the first token of the group halts, layers run as in dense execution.
        untouched = int((group == shape.num_tokens).all(1).cumprod().sum())
        untouched = min(untouched, shape.depth - 1)
        total += untouched * group.shape[1] * whole
        if untouched == shape.depth - 1:  # the last one, too
            total += group.shape[1] * last_block(shape, shape.num_tokens)
            continue
        for layer in range(untouched, shape.depth):
            last = layer == shape.depth - 1
            total += _executed_layer(shape, group[layer], plan, last=last)
    return (total + filled * (embedding(shape) + readout(shape))) / GIGA


def filled_up(batch_size: int, group: int) -> int:
    """Images that run where a batch is cut into even groups of at most `group`."""
    groups = -(-batch_size // group)
    return groups * -(-batch_size // groups)


def budget_gmacs(shape: Shape, plan: Plan) -> float:
    """Multiply-adds that every image costs under a static budget, in units of 1e9.

    Places are computed whether a live token is in them or not.
    """
    capacities = np.maximum(plan.capacities, shape.num_prefix_tokens)
    places = np.arange(shape.num_tokens) < capacities[:, None]
    return float(inference_gmacs(shape, Usage(tokens=places[:, None, :]))[0])


def selected_gmacs(shape: Shape, usage: Usage, plan: Plan) -> float:
    """What `selected.compact` runs for a batch on one device, in units of 1e9."""
    usage = jax.tree.map(np.asarray, usage)
    batch = usage.tokens.shape[1]
    filled = filled_up(batch, plan.images)
    usage = jax.tree.map(lambda array: np.pad(array, ((0, 0), (0, filled - batch), (0, 0))), usage)
    total = filled * float(embedding(shape) + readout(shape))
    for group in np.split(np.arange(filled), -(-batch // plan.images)):
        for layer in range(shape.depth):
            total += _selected_layer(shape, usage, plan, layer, group)
    return total / GIGA


def _selected_layer(shape: Shape, usage: Usage, plan: Plan, layer: int, group: np.ndarray) -> float:
    """One block on one group of images."""
    last = layer == shape.depth - 1
    attend, feed = (_selected_work(shape, usage, layer, group, half) for half in (0, 1))
    if last:
        read = len(group) * mlp(shape, shape.num_prefix_tokens)
        return read + _selected_half(shape, *attend, usage.head_effect, plan, half=0, last=True)
    if is_worth_it_whole([attend, feed], shape.num_tokens, plan):
        return len(group) * (attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens))
    return sum(
        _selected_half(shape, *work, usage.head_effect, plan, half=half, last=False)
        for half, work in enumerate((attend, feed))
    )


def _selected_work(
    shape: Shape, usage: Usage, layer: int, group: np.ndarray, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Live tokens of each image in one half of a block, and the heads that it keeps."""
    counts = usage.tokens[layer, group].sum(-1)
    if half and usage.every_token_in_mlp:
        counts = np.where(counts > 0, shape.num_tokens, 0)
    heads = np.ones((len(group), shape.num_heads), bool)
    if usage.heads is not None:
        heads = usage.heads[layer, group]
    if usage.branches is not None:
        counts = np.where(usage.branches[layer, group, half], counts, 0)
    return counts, heads


def _selected_half(
    shape: Shape,
    counts: np.ndarray,
    heads: np.ndarray,
    effect: str,
    plan: Plan,
    *,
    half: int,
    last: bool,
) -> float:
    """One half of a block on one group of images."""
    if not plan.head_sizes and not last:
        return _packed_half(shape, counts, heads, plan, half)
    sizes = (shape.num_heads,)
    if effect != "attention":
        counts, sizes = np.where(heads.any(-1), counts, 0), plan.head_sizes or sizes
    _, kind = selected_groups(counts, heads, plan, sizes)
    kind = np.asarray(kind)
    kind = kind[kind < len(sizes) * len(plan.lengths)]
    lengths = np.asarray(plan.lengths)[kind % len(plan.lengths)].astype(np.float64)
    # A head that only loses its attention is computed and then masked, and so are hidden units that
    # heads do not divide among them.
    share = np.asarray(sizes)[kind // len(plan.lengths)] / shape.num_heads
    if half and effect == "hidden" and shape.block.mlp_dim % shape.num_heads:
        share = 1.0
    if half:
        cost = mlp(shape, lengths, share, effect)
    else:
        cost = (last_attention if last else attention)(shape, lengths, share)
    return min(plan.attention_images, len(counts)) * float(cost.sum())


def _packed_half(
    shape: Shape, counts: np.ndarray, heads: np.ndarray, plan: Plan, half: int
) -> float:
    """The same where the rows of all images are packed and dropped heads are masked."""
    rows, dim = plan.rows_run(counts.sum()), shape.embed_dim
    if half:
        return mlp(shape, rows)
    pairs = np.where(heads, counts[:, None], 0).reshape(-1)
    size = min(plan.attention_images, len(pairs))
    padded = _padded(pairs, size, plan)
    return 4.0 * rows * dim * dim + size * (2.0 * padded**2 * dim / shape.num_heads).sum()


def _padded(counts: np.ndarray, size: int, plan: Plan) -> np.ndarray:
    """Lengths that attention is computed for, of each group of `size` with any token."""
    largest = np.sort(counts)[::-1][::size]
    lengths = np.asarray(plan.lengths)
    return lengths[np.searchsorted(lengths, largest)][largest > 0].astype(np.float64)


def _executed_layer(shape: Shape, live: np.ndarray, plan: Plan, *, last: bool) -> float:
    dim, prefix = shape.embed_dim, shape.num_prefix_tokens
    size = min(plan.attention_images, len(live))
    padded = _padded(live, size, plan)
    rows, answers = plan.rows_run(live.sum()), len(live)
    if len(live) == 1:  # it runs whole at one length, see `one_image.py`
        rows, answers = padded.sum(), len(padded)
    if last:
        fixed = answers * (prefix * 2.0 * dim * dim + mlp(shape, prefix))
        return 2.0 * rows * dim * dim + size * (2.0 * prefix * padded * dim).sum() + fixed
    return (4.0 * rows * dim * dim + mlp(shape, rows)) + size * (2.0 * padded**2 * dim).sum()
