"""Task losses and hits, per image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import Array


def soft_targets(labels: Array, num_classes: int, *, smoothing: float = 0.0) -> Array:
    """Labels `[B]` as distributions `[B, C]`, a share `smoothing` spread over all classes."""
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return one_hot * (1.0 - smoothing) + smoothing / num_classes


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Cross-entropy `[B]` in nats of logits `[..., B, C]` against distributions `[B, C]`."""
    return -(targets * jax.nn.log_softmax(logits.astype(jnp.float32))).sum(-1)


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean over the classes of each one's own cross-entropy, `[B]` in nats; arguments as above.

    Classes are told apart one by one, each present or not, so that a mixed image holds two (arXiv
    2110.00476). The mean, and not the sum, is that of timm's BinaryCrossEntropy and of torch's
    BCEWithLogitsLoss, whose targets are taken as they are mixed: penalties beside it weigh more
    than beside `cross_entropy`, the more classes there are.
    """
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets).mean(-1)


TASK_LOSSES = {"cross_entropy": cross_entropy, "bce": binary_cross_entropy}


def any_hits(logits: Array, right: Array, *, k: int) -> Array:
    """Whether one of several right answers is among the `k` largest logits, `[B]` bool.

    Ties count against it. Rows with a NaN are never a hit, nor are those without a right answer.

    Args:
        logits: `[B, C]`.
        right: `[B, C]` bool.
        k: from 1.
    """
    best = jnp.where(right, logits, -jnp.inf).max(-1, keepdims=True)
    rank = ((logits >= best) & ~right).sum(-1)
    return (rank < k) & jnp.isfinite(logits).all(-1) & right.any(-1)


def hits(logits: Array, labels: Array, *, k: int) -> Array:
    """Whether the label is among the `k` largest logits, `[B]` bool; ties count against it.

    Rows with a NaN are never a hit.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    others = jnp.arange(logits.shape[-1]) != labels[:, None]
    rank = ((logits >= own) & others).sum(-1)
    return (rank < k) & jnp.isfinite(logits).all(-1) & jnp.isfinite(own[:, 0])
