"""A-ViT: every token decides by itself when it is done.

Yin et al., "A-ViT: Adaptive Tokens for Efficient Vision Transformer", CVPR 2022 (arXiv 2112.07658).

*What is skipped:* tokens. Behind each block, channel 0 of a token becomes its halting score,
`sigmoid(gate_scale * x[0] - gate_center)`: no new parameters. Once a token's scores add up to
`1 - eps` it halts: from the next layer on it is no key, gets no update and costs nothing.
The class token obeys the same rule, and the answer is the score-weighted mean of its states.

*Why compaction is exact:* a halted token enters no live token's attention, its own state is never
read again, and only the means of tokens that the head reads reach it: those of the class (and
distillation) tokens, or with average pooling those of the patches. So halted tokens may be removed,
and an image of which all tokens that are read have halted is finished (`answers.py`).

*Training:* the task loss plus `ponder_weight` * mean ponder (layers executed + remainder) plus
`prior_weight` * KL(target depth distribution || mean score per layer).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax.execution.plan import Plan
from avit_jax.methods import base
from avit_jax.methods.avit import (
    answers,
    capped_tokens,
    costs,
    halting,
    learning,
    live_rows,
    live_tokens,
    onnx,
    segments,
    synthetic,
)
from avit_jax.methods.avit.penalties import penalties
from avit_jax.methods.avit.rules import Rules, behind, rules_of
from avit_jax.methods.avit.settings import Settings
from avit_jax.methods.forward import Call, embed, layer_inputs, relations
from avit_jax.models.backbone import Backbone
from avit_jax.models.block import Block
from avit_jax.models.functional import Params, first_layers, scan_layers
from avit_jax.streaming.segment import Segment
from avit_jax.types import SATURATED, Dial, Gates, Output, Usage


@dataclasses.dataclass(frozen=True)
class Model(base.Model):
    """Token halting on any backbone."""

    settings: Settings
    name = "avit"
    has_capped = True
    packs_exits = True
    has_image_rows = True

    def __post_init__(self):
        """A prior and rules that cannot be are refused here, not in the middle of tracing."""
        self.settings.depth_prior(self.shape.depth)
        self.settings.check(self.shape.depth)

    def build(self, rngs: nnx.Rngs) -> Backbone:
        """The backbone, with `gate_offsets` `[L]` beside its blocks where they are learnt."""
        network = super().build(rngs)
        if self.settings.learn_gates:
            network.gate_offsets = nnx.Param(jnp.zeros(self.shape.depth, jnp.float32))
        return network

    def from_timm(self, state_dict: Mapping[str, np.ndarray]) -> Params:
        """See `base.Model.from_timm`; plain weights get gates without offsets."""
        if self.settings.learn_gates and "gate_offsets" not in state_dict:
            return self.completed(self._named(state_dict, self.shape.build))
        return super().from_timm(state_dict)

    def forward(self, network: Backbone, images: Array, call: Call) -> Output:
        """See `base.Model.apply`."""
        if call.rows is not None:
            return learning.forward(self, network, images, call, call.rows)
        tokens = embed(network, images, call, dtype=halting.STREAM)
        shape = self.shape
        rules = self.rules(network, images, call)

        def layer(block: Block, carry, inputs: dict):
            x, state, answer, kept = carry
            rate, key = inputs["drop_path_rate"], inputs.get("key")
            # Halted tokens become zero, but the backward pass sees the identity, as published:
            # the scores that halted tokens still produce then go on training earlier layers.
            x = x + jax.lax.stop_gradient(jnp.where(state.live[:, :, None], x, 0) - x)
            gates = Gates(tokens=state.live)
            options = {"gates": gates, "drop_path_rate": rate, "key": key}
            x, scores = block.attend_and_score(x, bias=inputs.get("bias"), **options)
            x = block.feed(x, extra=inputs.get("extra"), **options)
            score = rules.score(x, inputs["index"])
            after, weight = rules.step(state, score, inputs["index"])
            answer = answer + answers.gained(shape, state.live, weight, x[:, shape.read])
            runs = answers.running(shape, state.live)
            if kept is not None:
                kept = jnp.where(runs[:, :, None], x, kept)
            record = {
                "mask": state.live,
                "halting_scores": score,
                "cumulative": after.cumulative,
                "remainder": after.remainder,
                "weights": weight,
            }
            if call.features:
                record["features"] = x
            if "relations" in call.shown:
                record["relations"] = relations(scores(), runs, self.shape.dtype)
            return (x, after, answer, kept), record

        shown = "states" in call.shown
        (_, state, answer, kept), record = scan_layers(
            layer,
            first_layers(network.blocks, rules.layers),
            (
                tokens,
                halting.start(tokens.shape[:2]),
                answers.nothing(shape, images.shape[0]),
                tokens if shown else None,
            ),
            jax.tree.map(lambda part: part[: rules.layers], layer_inputs(self.shape, call)),
            remat=self.shape.remat,
            unrolled=self.shape.unrolled,
        )
        margin = rules.margin(record)
        record = {name: behind(part, self.shape.depth) for name, part in record.items()}
        mask = jnp.concatenate([record["mask"], state.live[None]])
        ran = answers.running(shape, mask[:-1])
        heads = network.readout(answer)
        weighted, metrics = penalties(self.shape, self.settings, record, state, rules.strength)
        return Output(
            logits=heads.mean(0),
            usage=(Usage(tokens=ran),),
            penalties={} if call.dense else weighted,
            metrics=metrics | {"halted": (~ran).mean(dtype=jnp.float32)},
            aux=record
            | ({"states": kept} if shown else {})
            | {
                "mask": mask,
                "ponder": state.ponder,
                "depth": ran.sum(0, dtype=jnp.float32),
                "halting_depth": state.halting_depth,
                "head_logits": heads,
                "margin": margin,
            },
        )

    def rules(self, network: Backbone, images: Array, call: Call | None = None) -> Rules:
        """How tokens of these images halt, in training as far as `call` says."""
        return rules_of(self.shape, self.settings, network, images=images, call=call)

    @property
    def layers(self) -> int:
        """See `base.Model.layers`: `max_depth` at most."""
        return self.settings.layers(self.shape.depth)

    def compact(self, network: Backbone, images: Array, exists: Array, plan: Plan) -> Output:
        return self.compact_exit(network, images, exists, plan, Call())

    def compact_exit(
        self, network: Backbone, images: Array, exists: Array, plan: Plan, call: Call
    ) -> Output:
        rules = self.rules(network, images)
        return live_tokens.compact(network, images, exists, plan, call, rules)

    def compact_exit_gmacs(self, usage: Usage, plan: Plan, *, shown: Sequence[str]) -> float:
        return costs.compact_gmacs(self.shape, usage, plan, layers=self.layers, shown=shown)

    def compact_gmacs(self, usage: tuple[Usage, ...], plan: Plan) -> float:
        return costs.compact_gmacs(self.shape, usage[0], plan, layers=self.layers)

    def capped(self, network: Backbone, images: Array, exists: Array, plan: Plan) -> Output:
        rules = self.rules(network, images)
        return capped_tokens.capped(network, images, exists, plan, rules)

    def check_learns_on_rows(self) -> None:
        learning.check(self)

    @property
    def static_parts(self) -> int:
        """See `base.Model.static_parts`: a buffer for each layer."""
        return self.shape.depth

    def static(
        self, network: Backbone, images: Array, exists: Array, capacities: tuple[int, ...]
    ) -> Output:
        tokens = network.embed(images, dtype=halting.STREAM)
        ran = live_rows.run(
            self.shape,
            network.blocks,
            tokens,
            exists,
            capacities,
            self.rules(network, images),
        )
        return Output(
            logits=network.readout(ran.answer).mean(0),
            usage=(Usage(tokens=ran.live),),
            fits=jnp.broadcast_to(ran.fits, exists.shape),
        )

    def static_work(self, usage: tuple[Usage, ...]) -> Array:
        return usage[0].tokens.sum(-1)

    def static_gmacs(self, usage: tuple[Usage, ...], capacities: tuple[int, ...]) -> float:
        return costs.static_gmacs(self.shape, usage[0], capacities, layers=self.layers)

    def segments(self, plan: Plan, *, compact: bool) -> tuple[Segment, ...]:
        return segments.segments(self, plan, compact=compact)

    def dial(self) -> Dial:
        """`gate_center`, in logits from the model's own: higher means lower scores, more layers.

        Turning the threshold as well was not found to answer better: docs/results.md.
        """
        own = self.settings.gate_center
        return Dial(lambda position: {"gate_center": own + position}, -SATURATED, SATURATED)

    def synthetic_profiles(self) -> dict[str, float]:
        return synthetic.shares(self)

    def synthetic(
        self, share: float, batch_size: int, *, seed: int = 0
    ) -> tuple[Params, np.ndarray]:
        return synthetic.script(self, share, batch_size, seed=seed)

    def blocks_as_onnx(self, graph: Any, params: Params, tokens: str) -> tuple[str, list[str]]:
        """See `base.Model.blocks_as_onnx`."""
        return onnx.blocks(graph, params, tokens, self.settings)
