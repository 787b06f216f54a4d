"""Which answers to an image are right, and among how many classes they are chosen."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from avit_jax.losses import classification

VERDICTS = ("right", "choice", "unlabelled")  # of a batch, see `data/imagenet_variants.py`
_NEVER = float(jnp.finfo(jnp.float32).min)  # a logit that is finite and none is below


def verdicts(batch: dict[str, Array]) -> dict[str, Array]:
    """Of a batch what says more than labels do about its answers; nothing of most data."""
    return {name: batch[name] for name in VERDICTS if name in batch}


@struct.dataclass(kw_only=True)
class RightAnswers:
    """What the logits of a batch are held against.

    Attributes:
        labels: `[B]` int32.
        right: `[B, C]` bool, all answers that are right; the label alone where it is `None`.
        choice: `[B, C]` bool, the classes that answers are chosen from; all where it is `None`.
    """

    labels: Array
    right: Array | None = None
    choice: Array | None = None

    def hits(self, logits: Array, *, k: int) -> Array:
        """Whether a right answer is among the `k` largest logits `[B, C]`, `[B]` bool."""
        if self.right is None:
            return classification.hits(self._chosen(logits), self.labels, k=k)
        return classification.any_hits(self._chosen(logits), self.right, k=k)

    def cross_entropy(self, logits: Array) -> Array:
        """Cross-entropy `[B]` in nats against all right answers alike."""
        if self.right is None:
            targets = classification.soft_targets(self.labels, logits.shape[-1])
        else:
            targets = self.right / jnp.maximum(self.right.sum(-1, keepdims=True), 1)
        return classification.cross_entropy(self._chosen(logits), targets)

    def _chosen(self, logits: Array) -> Array:
        return logits if self.choice is None else jnp.where(self.choice, logits, _NEVER)
