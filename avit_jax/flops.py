"""Multiply-adds of a forward pass, needed and executed: the one place that counts.

One multiply-add counts once, as in the papers' "FLOPs"; only matrix products and attention count,
not norms, activations or the halting arithmetic (well under 1 %). DeiT-T / S / B at 224 px come out
as 1.254 / 4.599 / 17.56 GMACs, the published 1.3 / 4.6 / 17.6.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.inference.plan import Plan
from avit_jax.models.backbone import Shape
from avit_jax.types import Usage

GIGA = 1e9


def embedding(shape: Shape) -> int:
    """Patch embedding of one image."""
    return shape.embedding_macs


def readout(shape: Shape) -> int:
    """Classifier heads of one image."""
    return shape.num_prefix_tokens * shape.embed_dim * shape.num_classes


def attention(shape: Shape, tokens: Array | int, heads: Array | float = 1.0) -> Array | float:
    """Attention half of one block on `tokens` live tokens with a share `heads` of the heads."""
    width = shape.embed_dim * heads
    return 4.0 * tokens * shape.embed_dim * width + 2.0 * tokens * tokens * width


def mlp(shape: Shape, tokens: Array | int, heads: Array | float = 1.0) -> Array | float:
    """MLP half of one block; a dropped head takes its input channels with it."""
    hidden = shape.block.mlp_dim
    return tokens * shape.embed_dim * hidden * (heads + 1.0)


def per_layer(shape: Shape, usage: Usage) -> Array:
    """Multiply-adds of each block for each image, `[L, B]` float32."""
    tokens = usage.tokens.sum(-1).astype(jnp.float32)
    heads = 1.0 if usage.heads is None else usage.heads.astype(jnp.float32).mean(-1)
    attend, feed = attention(shape, tokens, heads), mlp(shape, tokens, heads)
    if usage.branches is not None:
        attend = attend * usage.branches[:, :, 0]
        feed = feed * usage.branches[:, :, 1]
    return attend + feed


def gmacs(shape: Shape, usage: Usage) -> Array:
    """Multiply-adds of each image, embedding to head, `[B]` float32 in units of 1e9."""
    fixed = embedding(shape) + readout(shape)
    return (per_layer(shape, usage) / GIGA).sum(0) + fixed / GIGA


def dense_gmacs(shape: Shape) -> float:
    """Multiply-adds of one image with nothing skipped, in units of 1e9."""
    blocks = shape.depth * (attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens))
    return (embedding(shape) + blocks + readout(shape)) / GIGA


def last_block(shape: Shape, tokens: Array | int) -> Array | float:
    """The last block where only prefix tokens are wanted: inference on `tokens` live ones.

    All of them give keys and values; queries, projection and MLP are those of the prefix.
    """
    prefix, dim = shape.num_prefix_tokens, shape.embed_dim
    attend = 2.0 * tokens * dim * dim + 2.0 * prefix * dim * dim + 2.0 * prefix * tokens * dim
    return attend + mlp(shape, prefix)


def inference_gmacs(shape: Shape, usage: Usage) -> np.ndarray:
    """Multiply-adds that each image needs in inference, `[B]` in units of 1e9.

    As `gmacs`, but the last block computes only what is read (`last_block`), and nothing for an
    image that is finished by then.
    """
    layers = np.asarray(per_layer(shape, usage), np.float64)
    tokens = np.asarray(usage.tokens[-1].sum(-1), np.float64)
    layers[-1] = np.where(tokens > 0, last_block(shape, tokens), 0.0)
    return (layers.sum(0) + embedding(shape) + readout(shape)) / GIGA


def dense_inference_gmacs(shape: Shape) -> float:
    """Multiply-adds of one image in the best dense inference, in units of 1e9."""
    full = attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens)
    blocks = (shape.depth - 1) * full + last_block(shape, shape.num_tokens)
    return (embedding(shape) + blocks + readout(shape)) / GIGA


def executed_gmacs(shape: Shape, tokens: np.ndarray, plan: Plan, *, devices: int = 1) -> float:
    """Multiply-adds that compacted execution really runs for a batch, padding included, in 1e9.

    Args:
        shape: of the model.
        tokens: `[L, B, N]` bool, live tokens as in `Usage`.
        plan: of the program.
        devices: that share the images.
    """
    if devices > 1:
        parts = np.split(np.asarray(tokens), devices, axis=1)
        return sum(executed_gmacs(shape, part, plan) for part in parts)
    counts = np.asarray(tokens).sum(-1)
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


def _executed_layer(shape: Shape, live: np.ndarray, plan: Plan, *, last: bool) -> float:
    dim, prefix = shape.embed_dim, shape.num_prefix_tokens
    rows = plan.rows_run(live.sum())
    size = min(plan.attention_images, len(live))
    largest = np.sort(live)[::-1][::size]
    lengths = np.asarray(plan.lengths)
    padded = lengths[np.searchsorted(lengths, largest)][largest > 0].astype(np.float64)
    if last:
        fixed = len(live) * prefix * (2.0 * dim * dim) + len(live) * mlp(shape, prefix)
        return 2.0 * rows * dim * dim + size * (2.0 * prefix * padded * dim).sum() + fixed
    return (4.0 * rows * dim * dim + mlp(shape, rows)) + size * (2.0 * padded**2 * dim).sum()
