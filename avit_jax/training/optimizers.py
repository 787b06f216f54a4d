"""The optimiser of a config, with warm-up, cosine decay, clipping and the field's no-decay rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array

from avit_jax.config.optim import Optim
from avit_jax.errors import UserError
from avit_jax.models.functional import Params


def learning_rate(
    settings: Optim, *, batch_size: int, total_steps: int, epochs: float = 1.0
) -> optax.Schedule:
    """Linear warm-up, a cosine down to the lowest rate, and cool-down at it, by step.

    The peak is `learning_rate * batch_size / reference_batch_size`: the linear
    scaling rule of Goyal et al. (arXiv 1706.02677), with 512 as reference in DeiT and A-ViT.
    Rates that are given as such (`warmup_start`, `min_rate`) are not scaled, as in DeiT's code.

    Args:
        settings: `config.optim`; `warmup` and `min_learning_rate` are shares of training and peak.
        batch_size: images per step.
        total_steps: steps of the whole training.
        epochs: of the whole training, of which `warmup_epochs` and `cooldown_epochs` are a part.

    Raises:
        UserError: the lowest rate is above the peak.
    """
    peak = settings.learning_rate * batch_size / settings.reference_batch_size
    lowest = peak * settings.min_learning_rate if settings.min_rate is None else settings.min_rate
    if lowest > peak:
        raise UserError(
            f"config.optim.min_rate is {lowest:g}, above the peak of {peak:g} that learning_rate "
            f"makes with batches of {batch_size} images: write a lower min_rate, or None."
        )
    share = settings.warmup
    if settings.warmup_epochs is not None:
        share = settings.warmup_epochs / epochs
    warmup = max(1, round(share * total_steps))
    cooldown = round(settings.cooldown_epochs / epochs * total_steps)
    end = max(warmup + 1, total_steps - cooldown)
    rise = optax.linear_schedule(settings.warmup_start, peak, warmup)
    under = warmup if settings.cosine_under_warmup else 0
    # Behind its last step a cosine of optax stays where it is, which is the cool-down.
    fall = optax.cosine_decay_schedule(peak, end - warmup + under, alpha=lowest / peak)
    return optax.join_schedules([rise, lambda step: fall(step + under)], [warmup])


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
    settings: Optim,
    schedule: optax.Schedule,
    *,
    trainable: Any,
    factors: Any = None,
    stacked: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimiser of `config.optim`: `update(grads, state, params, step=step)`.

    Args:
        settings: of the optimiser and clipping.
        schedule: learning rate by step.
        trainable: tree of bools; parameters that are False never move and need no memory here.
        factors: tree of factors on the learning rate, and so on the weight decay; `None` for ones.
        stacked: tree of bools: parameters of several layers on a leading axis, which LAMB tells
            apart; `None` for none.
    """
    transforms = []
    if settings.clip_norm > 0:
        transforms.append(optax.clip_by_global_norm(settings.clip_norm))
    transforms += _RULES[settings.name](settings, stacked)
    transforms.append(scale_by_rate_at_step(schedule))
    labels = jax.tree.map(lambda flag: "train" if flag else "freeze", trainable)
    optimizer = optax.partition(
        {"train": optax.chain(*transforms), "freeze": optax.set_to_zero()}, labels
    )
    if factors is None:  # a state as it was before there were any
        return optimizer

    def scaled(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda leaf, factor: leaf * factor, updates, factors)

    return optax.chain(optimizer, optax.stateless(scaled))


Rule = list[optax.GradientTransformation]


def _decay(settings: Optim) -> optax.GradientTransformation:
    return optax.add_decayed_weights(settings.weight_decay, mask=decayed)


def _adamw(settings: Optim, stacked: Any) -> Rule:
    """Decoupled weight decay (arXiv 1711.05101)."""
    return [
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
        _decay(settings),
    ]


def _lamb(settings: Optim, stacked: Any) -> Rule:
    """The step of every layer's parameter is as long as the parameter (arXiv 1904.00962)."""
    return [*_adamw(settings, stacked), _scale_by_trust_ratio(stacked)]


def _lion(settings: Optim, stacked: Any) -> Rule:
    """The sign of a mean of gradients (arXiv 2302.06675)."""
    return [optax.scale_by_lion(b1=settings.b1, b2=settings.b2), _decay(settings)]


_RULES: dict[str, Callable[[Optim, Any], Rule]] = {"adamw": _adamw, "lamb": _lamb, "lion": _lion}


def _scale_by_trust_ratio(stacked: Any) -> optax.GradientTransformation:
    """Optax's, in which the layers of a stacked parameter have a ratio each."""
    whole = optax.scale_by_trust_ratio()

    def one(update: Array, param: Array) -> Array:
        return whole.update(update, whole.init(param), param)[0]

    def scaled(updates: Any, params: Any) -> Any:
        # Frozen parameters are no leaves here, so the marks are looked up where others are.
        marks = jax.tree.map(lambda _: False, params) if stacked is None else stacked
        leaves, kind = jax.tree_util.tree_flatten_with_path(updates)
        of_layers = dict(jax.tree_util.tree_leaves_with_path(marks))
        of_params = dict(jax.tree_util.tree_leaves_with_path(params))
        ratios = [
            (jax.vmap(one) if of_layers[path] else one)(update, of_params[path])
            for path, update in leaves
        ]
        return jax.tree.unflatten(kind, ratios)

    return optax.stateless(scaled)
