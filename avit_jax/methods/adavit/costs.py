"""Multiply-adds that compact and static AdaViT really run, padding included, and their rows."""

from __future__ import annotations

import jax
import numpy as np

from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.methods.adavit.chosen_parts import is_worth_it_whole
from avit_jax.models.costs import GIGA, attention, embedding, mixing, mlp, readout
from avit_jax.models.norms import is_over_tokens
from avit_jax.models.shape import Shape
from avit_jax.types import Usage


def compact_gmacs(shape: Shape, usage: Usage, plan: Plan) -> float:
    """What `chosen_parts.compact` runs for a batch on one device, in units of 1e9."""
    usage = jax.tree.map(np.asarray, usage)
    batch = usage.tokens.shape[1]
    filled = filled_up(batch, plan.images)
    usage = jax.tree.map(lambda array: np.pad(array, ((0, 0), (0, filled - batch), (0, 0))), usage)
    total = filled * float(embedding(shape) + readout(shape))
    for group in np.split(np.arange(filled), -(-batch // plan.images)):
        for layer in range(shape.depth):
            total += _layer(shape, usage, plan, layer, group)
    return total / GIGA


def rows(shape: Shape, usage: Usage) -> np.ndarray:
    """Rows that each image wants in each buffer of `chosen_rows.static`, `[2 L, B]`."""
    usage = jax.tree.map(np.asarray, usage)
    images = np.arange(usage.tokens.shape[1])
    wanted = np.stack(
        [
            _work(shape, usage, layer, images, half)[0]
            for layer in range(shape.depth)
            for half in (0, 1)
        ]
    )
    wanted[-1] = np.minimum(wanted[-1], shape.num_last_tokens)
    return wanted


def static_gmacs(shape: Shape, usage: Usage, capacities: tuple[int, ...]) -> float:
    """What `chosen_rows.static` runs for a batch on one device, in units of 1e9.

    Linear layers run on all rows of a buffer, attention on all places of an image, those of dropped
    heads included. The kernel that leaves places out runs where rows are moved.
    """
    dim, prefix = shape.embed_dim, shape.num_last_tokens
    wanted = rows(shape, usage).astype(np.float64)
    batch = wanted.shape[1]
    everything = np.full(2 * shape.depth, batch * shape.num_tokens)
    everything[-1] = batch * prefix
    filled = np.minimum(capacities, everything)
    asking = np.full((shape.depth, batch), float(shape.num_tokens))
    if shape.fused_attention:
        moved = filled[::2] < everything[::2]
        asking = np.where(moved[:, None], wanted[::2], asking)
    halves = 4.0 * filled[::2] * dim**2 + mixing(shape, asking, asking).sum(1)
    # The last block's queries are those of answer tokens, whose keys are masked, whatever runs.
    last = 2.0 * (filled[-2] + batch * prefix) * dim**2
    last += batch * mixing(shape, prefix, shape.num_tokens)
    whole = shape.averages or is_over_tokens(shape.norm)
    total = halves.sum() if whole else halves[:-1].sum() + last
    total += mlp(shape, filled[1::2]).sum()
    return float(total + batch * (embedding(shape) + readout(shape))) / GIGA


def _layer(shape: Shape, usage: Usage, plan: Plan, layer: int, group: np.ndarray) -> float:
    """One block on one group of images."""
    halves = [_work(shape, usage, layer, group, half) for half in (0, 1)]
    if layer == shape.depth - 1 and not shape.averages:
        attend = _last_attention(shape, halves[0][0], usage.head_effect, plan)
        if is_over_tokens(shape.norm):
            attend = _attention(shape, *halves[0], plan)
        return attend + len(group) * mlp(shape, shape.num_last_tokens)
    if is_worth_it_whole([counts for counts, _ in halves], shape.num_tokens):
        return len(group) * (attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens))
    return _attention(shape, *halves[0], plan) + mlp(shape, plan.rows_run(halves[1][0].sum()))


def _work(
    shape: Shape, usage: Usage, layer: int, group: np.ndarray, half: int
) -> tuple[np.ndarray, np.ndarray]:
    """Live tokens of each image in one half of a block, and the heads that it keeps."""
    counts = usage.tokens[layer, group].sum(-1)
    if half and usage.every_token_in_mlp:
        counts = np.where(counts > 0, shape.num_tokens, 0)
    heads = np.ones((len(group), shape.num_heads), bool)
    if usage.heads is not None:
        heads = usage.heads[layer, group]
    if usage.halves is not None:
        counts = np.where(usage.halves[layer, group, half], counts, 0)
    return counts, heads


def _attention(shape: Shape, counts: np.ndarray, heads: np.ndarray, plan: Plan) -> float:
    """The attention half: packed rows with all heads, attention of those alone that are kept."""
    rows, dim = plan.rows_run(counts.sum()), shape.embed_dim
    pairs = np.where(heads, counts[:, None], 0).reshape(-1)
    size = min(plan.attention_images, len(pairs))
    padded = plan.padded_lengths(pairs, size)
    mixed = mixing(shape, padded, padded).sum() / shape.num_heads
    return 4.0 * rows * dim * dim + size * mixed


def _last_attention(shape: Shape, counts: np.ndarray, effect: str, plan: Plan) -> float:
    """The last block's, for answer tokens only; their values, too, if heads hand them on."""
    rows, dim, prefix = plan.rows_run(counts.sum()), shape.embed_dim, shape.num_last_tokens
    size = min(plan.attention_images, len(counts))
    padded = plan.padded_lengths(counts, size)
    # Queries and projection; keys and values of the prefix once more where values are handed on.
    products = 4.0 if effect == "attention" else 2.0
    front = len(counts) * prefix * products * dim * dim
    return 2.0 * rows * dim * dim + front + size * mixing(shape, prefix, padded).sum()
