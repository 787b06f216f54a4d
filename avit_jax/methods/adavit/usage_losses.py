"""Losses that hold a policy's usage at a target: what AdaViT's decisions are trained with.

Meng et al., "AdaViT: Adaptive Vision Transformers for Efficient Image Recognition", CVPR 2022
(arXiv 2111.15668), section 3.3, and the terms that its published code adds. Decisions are 0 or 1
(float32, with straight-through gradients); `L` counts the blocks that have the policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax import validators
from avit_jax.errors import UserError

_TINY = 1e-6  # against an empty count


@dataclasses.dataclass(frozen=True, kw_only=True)
class UsageLoss:
    """Weights of one kind of decision's loss.

    Attributes:
        weight: of the whole loss.
        target: share that should be kept, 0..1.
        diversity: weight of every single decision's distance from the target (averaged over the
          batch), inside the loss. It holds the usage alike everywhere.
        entropy: weight of the probabilities' entropy (nats), which is encouraged.
        minimum: share below which no single usage should fall.
        minimum_weight: weight of falling below it.
    """

    weight: float = 2.0
    target: float = 0.5
    diversity: float = 0.0
    entropy: float = 0.0
    minimum: float = 0.0
    minimum_weight: float = 0.0

    def __post_init__(self):
        validators.share(self, "target", "minimum")
        validators.not_negative(self, "weight", "diversity", "entropy", "minimum_weight")


DEFAULT = UsageLoss()  # of the published training script


def of(given: UsageLoss | Mapping[str, float], name: str) -> UsageLoss:
    """What a config gives, a mapping of some of its settings, as `UsageLoss`.

    Raises:
        UserError: settings that there are not, or of impossible values.
    """
    if isinstance(given, UsageLoss):
        return given
    valid = [field.name for field in dataclasses.fields(UsageLoss)]
    if not isinstance(given, Mapping):
        raise UserError(f"{name} is {given!r}: write settings of it, some of {', '.join(valid)}.")
    unknown = sorted(set(given) - set(valid))
    if unknown:
        raise UserError(
            f"{name} has no {', '.join(unknown)}: valid settings are {', '.join(valid)}."
        )
    try:
        return UsageLoss(**given)
    except UserError as error:
        raise UserError(f"{name}.{error}") from error


def heads_loss(
    heads: Array, logits: Array, layers: Array | None, loss: UsageLoss, target: Array
) -> Array:
    """Loss of head decisions, before its weight.

    Args:
        heads: `[L, B, H]` decisions.
        logits: `[L, B, H]` behind them, without noise.
        layers: `[L, B, 2]` decisions over the halves: blocks without either do not count. `None`
          where every half runs.
        loss: weights.
        target: share to keep at this moment of the training.
    """
    runs = jnp.ones_like(heads)
    if layers is not None:
        runs = runs * (layers.sum(-1, keepdims=True) > 0)
    kept = heads * runs
    each = kept.sum(1) / (runs.sum(1) + _TINY)  # [L, H], over the images
    usage = jnp.abs(kept.sum() / (runs.sum() + _TINY) - target)
    return _sum(usage, each, each, logits, loss, target)


def layers_loss(layers: Array, logits: Array, loss: UsageLoss, target: Array) -> Array:
    """Loss of decisions over halves `[L, B, 2]`, before its weight; arguments as `heads_loss`."""
    usage = jnp.abs(layers.mean() - target)
    # Diversity looks at whole blocks, the minimum at every half by itself.
    return _sum(usage, layers.mean((1, 2)), layers.mean(1), logits, loss, target)


def tokens_loss(tokens: Array, loss: UsageLoss, target: Array) -> Array:
    """Loss of token decisions `[L, B, N]` (prefix tokens included), before its weight.

    The shortfall below the minimum is summed over blocks and averaged over images; upstream sums
    over images, too, so that its weight depends on the batch size.
    """
    shortfall = _shortfall(tokens.mean(2), loss.minimum) / tokens.shape[1]
    return (tokens.mean() - target) ** 2 + loss.minimum_weight * shortfall


def entropy(logits: Array) -> Array:
    """Entropy in nats of the yes-or-no distributions with these logits."""
    yes = jax.nn.sigmoid(logits)
    no = 1.0 - yes
    # Probabilities near 0 are cut off in the logarithm, or its gradient would be infinite.
    return -(yes * jnp.log(jnp.maximum(yes, 1e-7)) + no * jnp.log(jnp.maximum(no, 1e-7)))


def _sum(
    usage: Array, diverse: Array, smallest: Array, logits: Array, loss: UsageLoss, target: Array
) -> Array:
    """A distance from the target, and the terms that look at single decisions."""
    return (
        usage
        + loss.diversity * jnp.abs(diverse - target).mean()
        - loss.entropy * entropy(logits).mean()
        + loss.minimum_weight * _shortfall(smallest, loss.minimum)
    )


def _shortfall(usage: Array, minimum: float) -> Array:
    return jnp.maximum(0.0, minimum - usage).sum()
