"""Options of policies over tokens, heads and halves of blocks: AdaViT's `Settings`."""

from __future__ import annotations

import dataclasses

from jax import Array

from avit_jax import validators
from avit_jax.errors import UserError
from avit_jax.methods import schedule
from avit_jax.methods.adavit import usage_losses
from avit_jax.methods.adavit.usage_losses import DEFAULT, UsageLoss
from avit_jax.types import HEAD_EFFECTS

# Of decisions; "layers" are the attention half and the MLP half of a block.
KINDS = ("heads", "layers", "tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of AdaViT; the defaults are those of the released models.

    Attributes:
        heads: whether heads are chosen.
        layers: whether halves of blocks are chosen.
        tokens: whether tokens are chosen.
        keep_layers: blocks at the beginning that run all heads and both halves.
        token_start_layer: blocks at the beginning that run all tokens.
        head_effect: what a dropped head takes with it, see `types.HEAD_EFFECTS`. "channels" is the
          released models'; "hidden" and "attention" are upstream's `ada_head_v2`, `ada_head_attn`.
        every_token_in_mlp: tokens are chosen for the attention halves only.
        head_threshold: probability above which a head is kept.
        layer_threshold: the same of a half.
        token_threshold: the same of a token.
        temperature: of the decisions in training.
        final_temperature: of those at the end, if it is to change; it does so linearly.
        initial_logit: of every fresh policy: how sure it is to keep everything.
        heads_loss: weights and target of the heads' usage, see `UsageLoss`.
        layers_loss: the same of halves.
        tokens_loss: the same of tokens; has no `diversity` and no `entropy`.
        dense_until: share of the training, 0..1, in which the targets stay at 1.
        ramp: share of the training in which they then fall to their values.
        logit_shift: added to every decision's logit: less or more of everything. For the dial.
    """

    heads: bool = True
    layers: bool = True
    tokens: bool = True
    keep_layers: int = 1
    token_start_layer: int = 0
    head_effect: str = "channels"
    every_token_in_mlp: bool = False
    head_threshold: float = dataclasses.field(default=0.5, metadata={"use": True})
    layer_threshold: float = dataclasses.field(default=0.5, metadata={"use": True})
    token_threshold: float = dataclasses.field(default=0.6, metadata={"use": True})
    temperature: float = 5.0
    final_temperature: float | None = None
    initial_logit: float = 3.0
    heads_loss: UsageLoss = DEFAULT
    layers_loss: UsageLoss = DEFAULT
    tokens_loss: UsageLoss = DEFAULT
    dense_until: float = 0.0
    ramp: float = 0.0
    logit_shift: float = dataclasses.field(default=0.0, metadata={"use": True})

    def __post_init__(self):
        for kind in KINDS:
            loss = getattr(self, f"{kind}_loss")
            object.__setattr__(self, f"{kind}_loss", usage_losses.of(loss, f"{kind}_loss"))
        validators.one_of(HEAD_EFFECTS, self, "head_effect")
        validators.between_zero_and_one(
            self, "head_threshold", "layer_threshold", "token_threshold"
        )
        validators.positive(self, "temperature")
        validators.positive(self, "final_temperature", optional=True)
        validators.finite(self, "initial_logit", "logit_shift")
        if self.tokens_loss.diversity or self.tokens_loss.entropy:
            raise UserError(
                "tokens_loss has no diversity and no entropy: leave them at 0; minimum and "
                "minimum_weight hold single usages up."
            )
        schedule.check(dense_until=self.dense_until, ramp=self.ramp)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Kinds of decisions that there are."""
        return tuple(kind for kind in KINDS if getattr(self, kind))

    def first_layer(self, kind: str) -> int:
        """First block, counted from 0, that has a kind of decision."""
        return self.token_start_layer if kind == "tokens" else self.keep_layers

    def threshold(self, kind: str) -> float:
        """Probability above which a kind of decision is yes."""
        return getattr(self, f"{kind[:-1]}_threshold")

    def temperature_at(self, progress: Array | float) -> Array | float:
        """The temperature at a share of the training."""
        if self.final_temperature is None:
            return self.temperature
        return self.temperature + progress * (self.final_temperature - self.temperature)

    def target_at(self, kind: str, progress: Array | float) -> Array:
        """What share of a kind is to be kept at a share of the training."""
        strength = schedule.strength(progress, dense_until=self.dense_until, ramp=self.ramp)
        return 1.0 - strength * (1.0 - getattr(self, f"{kind}_loss").target)
