"""Settings of the optimiser and of its learning rate."""

from __future__ import annotations

import dataclasses

from avit_jax import validators


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    """The optimiser and its learning rate."""

    # "adamw"; "lamb" (arXiv 1904.00962), for very large batches; or "lion" (arXiv 2302.06675),
    # which keeps one mean instead of two, and whose authors take b2 0.99 and a third to a tenth
    # of AdamW's rate.
    name: str = "adamw"
    learning_rate: float = 5e-4  # the peak, for `reference_batch_size` images a step
    reference_batch_size: int = 512  # the learning rate is scaled by batch_size / this
    warmup: float = 0.05  # share of the training
    # Instead of `warmup`, epochs of `train.epochs`; where `train.steps` says how long the training
    # is, as large a share of it.
    warmup_epochs: float | None = None
    warmup_start: float = 0.0  # learning rate of the first step, not scaled
    min_learning_rate: float = 0.01  # share of the peak
    min_rate: float | None = None  # instead of `min_learning_rate`: a rate, not scaled
    cooldown_epochs: float = 0.0  # the last of `train.epochs`, at the lowest rate
    # Whether the cosine begins with the training, as timm's and so DeiT's, and not behind the
    # warm-up. The rate then goes on below its peak.
    cosine_under_warmup: bool = False
    weight_decay: float = 0.05  # of weights, times the learning rate
    b1: float = 0.9  # decay of the mean of gradients
    b2: float = 0.999  # decay of the mean of their squares; with lion, of the gradients
    eps: float = 1e-8  # added to the root of the latter; lion has none
    clip_norm: float = 0.0  # largest norm of a step's gradients; 0: no clipping
    freeze: tuple[str, ...] | None = None  # patterns on paths of what stays fixed: "blocks.mlp.*"
    layer_decay: float = 1.0  # a layer's rate times this ** (number of layers above)

    def __post_init__(self):
        prefix = "config.optim."
        validators.positive(self, "learning_rate", "reference_batch_size", "eps", prefix=prefix)
        validators.share(self, "layer_decay", prefix=prefix)
        validators.one_of(("adamw", "lamb", "lion"), self, "name", prefix=prefix)
        rates = ("weight_decay", "clip_norm", "warmup_start", "cooldown_epochs")
        validators.not_negative(self, *rates, prefix=prefix)
        validators.not_negative(self, "warmup_epochs", "min_rate", prefix=prefix, optional=True)
        shares = ("warmup", "min_learning_rate", "b1", "b2")
        validators.share_below_one(self, *shares, prefix=prefix)
