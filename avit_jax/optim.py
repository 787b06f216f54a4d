"""AdamW with warm-up, cosine decay, clipping and the field's no-decay rule."""

from __future__ import annotations

from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from avit_jax.models.module import Params


def learning_rate(config: ConfigDict, *, batch_size: int, total_steps: int) -> optax.Schedule:
    """Linear warm-up, then cosine, as a function of the step.

    The peak is `config.learning_rate * batch_size / config.reference_batch_size`: the linear
    scaling rule of Goyal et al. (arXiv 1706.02677), with 512 as reference in DeiT and A-ViT.

    Args:
      config: `config.optim`; `warmup` and `min_learning_rate` are shares of training and peak.
      batch_size: images per step.
      total_steps: steps of the whole training.
    """
    peak = config.learning_rate * batch_size / config.reference_batch_size
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak,
        warmup_steps=max(1, round(config.warmup * total_steps)),
        decay_steps=max(2, total_steps),
        end_value=peak * config.min_learning_rate,
    )


def decayed(params: Params) -> Any:
    """Tree of bools: weight decay is for matrices, not for biases, norms, tokens and positions."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def build(
    config: ConfigDict, schedule: optax.Schedule, *, trainable: Any
) -> optax.GradientTransformation:
    """The optimiser of `config.optim`; parameters that `trainable` excludes never move."""
    transforms = []
    if config.clip_norm > 0:
        transforms.append(optax.clip_by_global_norm(config.clip_norm))
    transforms.append(
        optax.adamw(
            schedule,
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decayed,
        )
    )
    labels = jax.tree.map(lambda flag: "train" if flag else "freeze", trainable)
    return optax.partition(
        {"train": optax.chain(*transforms), "freeze": optax.set_to_zero()}, labels
    )
