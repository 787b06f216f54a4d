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
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax.errors import UserError
from avit_jax.execution.plan import Plan
from avit_jax.methods import base
from avit_jax.methods.adavit import (
    chosen_parts,
    chosen_rows,
    costs,
    decisions,
    policies,
    synthetic,
    usage_losses,
    weight_names,
)
from avit_jax.methods.adavit.settings import KINDS, Settings
from avit_jax.methods.forward import Call, embed, layer_inputs, relations
from avit_jax.models.block import Block
from avit_jax.models.functional import Params, scan_layers
from avit_jax.models.norms import of_images
from avit_jax.pretrained.query_key_value import apart, joined
from avit_jax.types import SATURATED, Dial, Output, Usage


@dataclasses.dataclass(frozen=True)
class Model(base.Model):
    """Policies over tokens, heads and halves on any backbone."""

    settings: Settings
    name = "adavit"
    upstream_names = weight_names.POLICIES
    tokens_return = True

    def __post_init__(self):
        """Blocks without policies are counted here, where the depth is known."""
        if self.shape.tokens_keep_slots:
            raise UserError(
                "AdaViT chooses attention heads and tokens anew in every block, but model.mixer "
                f"{self.shape.mixer!r} has no attention: write attention, or take an A-ViT."
            )
        for name in ("keep_layers", "token_start_layer"):
            if not 0 <= getattr(self.settings, name) < self.shape.depth:
                raise UserError(
                    f"{name} is {getattr(self.settings, name)}, but the model has "
                    f"{self.shape.depth} blocks: write 0 to {self.shape.depth - 1}."
                )
        if not self.shape.num_class_tokens:
            raise UserError(
                "AdaViT's policies over heads and halves read the class token, and "
                "num_class_tokens is 0: write 1 or more (pool = avg may stay)."
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

    @property
    def nothing_may_run(self) -> str:
        """See `base.Model.nothing_may_run`."""
        anywhere = "layers" in self.settings.chosen and not self.settings.keep_layers
        return "keep_layers is 0: write 1 or more, or layers = False" if anywhere else ""

    def forward(self, network: Any, images: Array, call: Call) -> Output:
        shape, settings = self.shape, self.settings
        tokens = embed(network, images, call)
        inputs = layer_inputs(shape, call)
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
            normed = of_images(block.norm1, x)
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
            attend, feed = decisions.gates(settings, choice, train=call.train)
            record = choice | {decisions.logits_name(kind): logits[kind] for kind in logits}
            if call.features:
                # Heads that lose their attention alone keep queries and keys.
                kept = None if settings.head_effect == "attention" else attend.heads
                record["attention"] = block.attention.class_row(normed, heads=kept)
            options = {"drop_path_rate": rate, "key": key}
            x, scores = block.attend_and_score(
                x, gates=attend, normed=normed, bias=inputs.get("bias"), **options
            )
            if "relations" in call.shown:
                tokens, heads = decisions.attending(choice, x.shape[:2], shape.num_heads)
                record["relations"] = relations(scores(), tokens, shape.dtype, heads=heads)
            x = block.feed(x, gates=feed, extra=inputs.get("extra"), **options)
            return x, record | ({"features": x} if call.features else {})

        x, record = scan_layers(
            layer, network.blocks, tokens, inputs, remat=shape.remat, unrolled=shape.unrolled
        )
        heads = network.readout(network.read(x))
        usage = decisions.usage(settings, record, (shape.depth, *tokens.shape[:2]))
        penalties, metrics = self.penalties(record, call.progress)
        return Output(
            logits=heads.mean(0),
            usage=(usage,),
            penalties=penalties,
            metrics=metrics,
            aux=decisions.shown(record)
            | ({"states": x} if "states" in call.shown else {})
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
        return chosen_parts.compact(network, images, exists, plan, settings=self.settings)

    def from_timm(self, state_dict: Mapping[str, np.ndarray]) -> Params:
        """See `base.Model.from_timm`; weights without any policy, as DeiT's, get fresh ones.

        Policies that the settings switch off are dropped, with a warning that names them.
        """
        state_dict = joined(state_dict)
        if not self.settings.chosen or weight_names.has_policies(state_dict):
            kept = weight_names.without_switched_off(state_dict, self.settings)
            return super().from_timm(kept)
        return self.completed(self._named(state_dict, self.shape.build))

    def to_timm(self, params: Params) -> dict[str, np.ndarray]:
        """See `base.Model.to_timm`; upstream keeps query, key and value apart."""
        return apart(super().to_timm(params))

    def compact_gmacs(self, usage: tuple[Usage, ...], plan: Plan) -> float:
        return costs.compact_gmacs(self.shape, usage[0], plan)

    @property
    def static_parts(self) -> int:
        """See `base.Model.static_parts`: a buffer for each half of a block."""
        return 2 * self.shape.depth

    def static(
        self, network: Any, images: Array, exists: Array, capacities: tuple[int, ...]
    ) -> Output:
        return chosen_rows.static(network, images, exists, capacities, settings=self.settings)

    def static_work(self, usage: tuple[Usage, ...]) -> Array:
        return costs.rows(self.shape, usage[0])

    def static_gmacs(self, usage: tuple[Usage, ...], capacities: tuple[int, ...]) -> float:
        return costs.static_gmacs(self.shape, usage[0], capacities)

    def synthetic_profiles(self) -> dict[str, float]:
        return synthetic.shares(self)

    def synthetic(
        self, share: float, batch_size: int, *, seed: int = 0
    ) -> tuple[Params, np.ndarray]:
        return synthetic.script(self, share, batch_size, seed=seed)

    def dial(self) -> Dial | None:
        """`logit_shift`: the same for tokens, heads and halves."""
        if not self.settings.chosen:
            return None
        own = self.settings.logit_shift
        return Dial(lambda position: {"logit_shift": own + position}, -SATURATED, SATURATED)
