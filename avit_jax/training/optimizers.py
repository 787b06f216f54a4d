"""AdamW with warm-up, cosine decay, clipping and the field's no-decay rule."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax import Array

from avit_jax.config.defaults import Optim
from avit_jax.models.functional import Params


def learning_rate(settings: Optim, *, batch_size: int, total_steps: int) -> optax.Schedule:
    """Linear warm-up, then cosine, as a function of the step.

    The peak is `learning_rate * batch_size / reference_batch_size`: the linear
    scaling rule of Goyal et al. (arXiv 1706.02677), with 512 as reference in DeiT and A-ViT.

    Args:
        settings: `config.optim`; `warmup` and `min_learning_rate` are shares of training and peak.
        batch_size: images per step.
        total_steps: steps of the whole training.
    """
    peak = settings.learning_rate * batch_size / settings.reference_batch_size
    warmup = max(1, round(settings.warmup * total_steps))
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(warmup + 1, total_steps),
        end_value=peak * settings.min_learning_rate,
    )


def decayed(params: Params) -> Any:
    """Tree of bools: weight decay is for matrices, not for biases, norms, tokens and positions."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def scale_by_rate_at_step(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiply by minus the learning rate of the `step` that is given to `update`.

    Optax's own schedules count the updates they have seen, and would lag behind the training after
    a step that a rollback has left out.
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None, *, step: Array, **_: Any):
        rate = -schedule(step)
        return jax.tree.map(lambda leaf: rate * leaf, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def build(
    settings: Optim, schedule: optax.Schedule, *, trainable: Any, factors: Any = None
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of `config.optim`: `update(grads, state, params, step=step)`.

    Args:
        settings: of AdamW and clipping.
        schedule: learning rate by step.
        trainable: tree of bools; parameters that are False never move and need no memory here.
        factors: tree of factors on the learning rate, and so on the weight decay; `None` for ones.
    """
    transforms = []
    if settings.clip_norm > 0:
        transforms.append(optax.clip_by_global_norm(settings.clip_norm))
    transforms += [
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=decayed),
        scale_by_rate_at_step(schedule),
    ]
    labels = jax.tree.map(lambda flag: "train" if flag else "freeze", trainable)
    optimizer = optax.partition(
        {"train": optax.chain(*transforms), "freeze": optax.set_to_zero()}, labels
    )
    if factors is None:  # a state as it was before there were any
        return optimizer

    def scaled(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda leaf, factor: leaf * factor, updates, factors)

    return optax.chain(optimizer, optax.stateless(scaled))
