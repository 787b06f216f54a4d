"""AdaViT: policies decide per image which tokens, heads and halves of every block it needs.

Meng et al., "AdaViT: Adaptive Vision Transformers for Efficient Image Recognition", CVPR 2022
(arXiv 2111.15668).

*What is skipped:* in front of a block, linear policies read the class token (which heads, which of
the two halves) and the normalised patches (which tokens). A dropped token sits the block out and
comes back for the next; a dropped head leaves with its channels of the MLP's input; a dropped half
is not added. Prefix tokens always stay, and the first `keep_layers` blocks run all of their heads
and halves.

*Why compaction is exact:* nothing dropped enters anything that stays. A dropped token is no key and
gets no update, a dropped head contributes zeros to the products that it feeds, and an image without
a half simply is not in that half's batch. Without any head a half adds the same vector to every
token (the linear layers' biases), which is computed once for all.

*Training:* decisions are drawn with logistic noise and passed by straight-through gradients
(`gumbel.py`); losses hold the usage at its targets (`usage_losses.py`).
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax import decisions, executed, ramp, usage_losses
from avit_jax.decisions import KINDS
from avit_jax.errors import UserError
from avit_jax.inference import selected
from avit_jax.inference.plan import Plan, with_heads_left_out
from avit_jax.methods import base
from avit_jax.models import policies
from avit_jax.models.layers import Block
from avit_jax.models.module import Params, scan_layers
from avit_jax.pretrained import adavit_names
from avit_jax.types import HEAD_EFFECTS, Dial, Output, Usage
from avit_jax.usage_losses import DEFAULT, UsageLoss

# Width from which leaving heads out of a CPU's products was found to save more than fetching the
# weights of the others costs: docs/performance.md.
NARROWING_PAYS = 384
SATURATED = 1e4  # a shift of the logits that makes every decision yes or no


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
    head_threshold: float = 0.5
    layer_threshold: float = 0.5
    token_threshold: float = 0.6
    temperature: float = 5.0
    final_temperature: float | None = None
    initial_logit: float = 3.0
    heads_loss: UsageLoss = DEFAULT
    layers_loss: UsageLoss = DEFAULT
    tokens_loss: UsageLoss = DEFAULT
    dense_until: float = 0.0
    ramp: float = 0.0
    logit_shift: float = 0.0

    def __post_init__(self):
        for kind in KINDS:
            loss = getattr(self, f"{kind}_loss")
            object.__setattr__(self, f"{kind}_loss", usage_losses.of(loss, f"{kind}_loss"))
        if self.head_effect not in HEAD_EFFECTS:
            raise UserError(
                f"head_effect {self.head_effect!r} is unknown: write one of "
                f"{', '.join(HEAD_EFFECTS)}."
            )
        for name in ("head_threshold", "layer_threshold", "token_threshold"):
            # Below a half the straight-through step is not exact in floating point.
            if not 0.5 <= getattr(self, name) < 1.0:
                raise UserError(
                    f"{name} is {getattr(self, name)}: it must lie in [0.5, 1); to keep more, "
                    "raise the target of the loss or initial_logit."
                )
        for name in ("temperature", "final_temperature"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise UserError(f"{name} is {value}: write a number above 0.")
        for name in ("initial_logit", "logit_shift"):
            value = getattr(self, name)
            # The dial passes traced values, which nobody can look at.
            if isinstance(value, numbers.Real) and not math.isfinite(value):
                raise UserError(f"{name} is {value}: write a finite number.")
        if self.tokens_loss.diversity or self.tokens_loss.entropy:
            raise UserError(
                "tokens_loss has no diversity and no entropy: leave them at 0; minimum and "
                "minimum_weight hold single usages up."
            )
        ramp.check(dense_until=self.dense_until, ramp=self.ramp)

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
        strength = ramp.strength(progress, dense_until=self.dense_until, ramp=self.ramp)
        return 1.0 - strength * (1.0 - getattr(self, f"{kind}_loss").target)


@dataclasses.dataclass(frozen=True)
class Model(base.Model):
    """Policies over tokens, heads and halves on any backbone."""

    settings: Settings

    def __post_init__(self):
        """Blocks without policies are counted here, where the depth is known."""
        for name in ("keep_layers", "token_start_layer"):
            if not 0 <= getattr(self.settings, name) < self.shape.depth:
                raise UserError(
                    f"{name} is {getattr(self.settings, name)}, but the model has "
                    f"{self.shape.depth} blocks: write 0 to {self.shape.depth - 1}."
                )

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """The backbone, with `policies` beside its blocks."""
        network = super().build(rngs)  # first, so that it starts as without policies
        settings, sizes = self.settings, {"heads": self.shape.num_heads, "layers": 2, "tokens": 1}
        if settings.chosen:
            network.policies = policies.Policies(
                self.shape.embed_dim,
                depth=self.shape.depth,
                outputs={kind: sizes[kind] for kind in settings.chosen},
                first={kind: settings.first_layer(kind) for kind in settings.chosen},
                bias=settings.initial_logit,
                rngs=rngs,
            )
        return network

    @property
    def draws(self) -> bool:
        """See `base.Model.draws`: decisions are."""
        return super().draws or bool(self.settings.chosen)

    def forward(self, network: Any, images: Array, call: base.Call) -> Output:
        """See `base.Model.apply`."""
        shape, settings = self.shape, self.settings
        tokens = base.embed(network, images, call)
        inputs = base.layer_inputs(shape, call)
        if settings.chosen and not call.dense:
            inputs["policies"] = network.policies.per_layer()
            if call.train:
                key = None if call.key is None else jax.random.fold_in(call.key, shape.depth + 2)
                inputs["noise"] = call.noise or decisions.draw(
                    settings, shape, images.shape[0], key
                )
        temperature = settings.temperature_at(call.progress)

        def layer(block: Block, x: Array, inputs: dict) -> tuple[Array, dict[str, Array]]:
            rate, key = inputs["drop_path_rate"], inputs.get("key")
            normed = block.norm1(x)
            logits, choice = decisions.decide(
                settings,
                x,
                normed,
                inputs.get("policies", {}),
                prefix=shape.num_prefix_tokens,
                noise=inputs.get("noise"),
                temperature=temperature,
            )
            if "layers" in choice:  # a policy over halves is a stochastic depth of its own
                rate = jnp.where(inputs["policies"]["layers"]["decides"], 0.0, rate)
            attend, feed = decisions.gates(settings, choice)
            record = choice | {decisions.logits_name(kind): logits[kind] for kind in logits}
            if call.features:
                record["attention"] = block.attention.class_row(normed, heads=attend.heads)
            x = block.attend(x, gates=attend, normed=normed, drop_path_rate=rate, key=key)
            x = block.feed(x, gates=feed, drop_path_rate=rate, key=key)
            return x, record | ({"features": x} if call.features else {})

        x, record = scan_layers(layer, network.blocks, tokens, inputs, remat=shape.remat)
        heads = network.readout(x)
        usage = decisions.usage(settings, record, (shape.depth, *tokens.shape[:2]))
        penalties, metrics = self.penalties(record, call.progress)
        return Output(
            logits=heads.mean(0),
            usage=usage,
            penalties=penalties,
            metrics=metrics | {"mean_depth": usage.tokens.sum(0).mean(dtype=jnp.float32)},
            aux=decisions.shown(record)
            | {"head_logits": heads, "margin": decisions.margin(settings, record, images.shape[0])},
        )

    def penalties(
        self, record: dict[str, Array], progress: Array | float
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Weighted losses of the usage, and the usage itself, of `decide`'s record `[L, ...]`."""
        settings, penalties, metrics = self.settings, {}, {}
        decided = {
            kind: record[kind][settings.first_layer(kind) :] for kind in KINDS if kind in record
        }
        for kind in decided:
            loss, target = getattr(settings, f"{kind}_loss"), settings.target_at(kind, progress)
            logits = record[decisions.logits_name(kind)][settings.first_layer(kind) :]
            if kind == "heads":
                value = usage_losses.heads_loss(
                    decided[kind], logits, decided.get("layers"), loss, target
                )
            elif kind == "layers":
                value = usage_losses.layers_loss(decided[kind], logits, loss, target)
            else:
                value = usage_losses.tokens_loss(decided[kind], loss, target)
            penalties[kind] = loss.weight * value
            metrics[f"{kind}_usage"] = jax.lax.stop_gradient(decided[kind].mean())
        return penalties, metrics

    def compact(self, network: Any, images: Array, exists: Array, plan: Plan) -> Output:
        """See `base.Model.compact`."""
        return selected.compact(network, images, exists, plan, settings=self.settings)

    def from_torch(self, state_dict: Mapping[str, Any]) -> Params:
        """See `base.Model.from_torch`; weights without any policy, as DeiT's, get fresh ones."""
        state_dict = adavit_names.joined(state_dict)
        if not self.settings.chosen or adavit_names.has_policies(state_dict):
            return super().from_torch(state_dict)
        return self.completed(super().from_torch(state_dict, plain=True))

    def to_torch(self, params: Params) -> dict[str, np.ndarray]:
        """See `base.Model.to_torch`; upstream keeps query, key and value apart."""
        return adavit_names.apart(super().to_torch(params))

    def executed_gmacs(self, usage: Usage, plan: Plan, *, devices: int = 1) -> float:
        """See `base.Model.executed_gmacs`."""
        return executed.on_devices(
            executed.selected_gmacs, self.shape, usage, plan, devices=devices
        )

    def default_plan(self, batch_size: int) -> Plan:
        """See `base.Model.default_plan`; heads are masked in products unless those are wide."""
        plan = super().default_plan(batch_size)
        narrows = jax.default_backend() == "cpu" and self.shape.embed_dim >= NARROWING_PAYS
        return with_heads_left_out(plan, self.shape.num_heads) if narrows else plan

    def candidate_plans(self, batch_size: int) -> dict[str, Plan]:
        """See `base.Model.candidate_plans`: heads are masked in products, or left out."""
        plans, masked = super().candidate_plans(batch_size), super().default_plan(batch_size)
        both = {
            "masked heads": masked,
            "heads left out": with_heads_left_out(masked, self.shape.num_heads),
        }
        return plans | {name: plan for name, plan in both.items() if plan != plans["default"]}

    def dial(self) -> Dial | None:
        """`logit_shift`: the same for tokens, heads and halves."""
        if not self.settings.chosen:
            return None
        own = self.settings.logit_shift
        return Dial(lambda position: {"logit_shift": own + position}, -SATURATED, SATURATED)
