"""No adaptive computation: the plain (distilled) vision transformer, DeiT (arXiv 2012.12877).

Nothing is skipped, so masked, dense and compacted execution are one and the same. It is the
baseline that every other method is compared with, and the shortest example of a method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from avit_jax.execution.between_exits import Given, whole_block
from avit_jax.execution.dense import dense, dense_gmacs, last_block
from avit_jax.execution.plan import Plan
from avit_jax.methods import base
from avit_jax.methods.forward import Call, Reused, embed, layer_inputs
from avit_jax.models import costs
from avit_jax.models.backbone import Backbone
from avit_jax.models.block import Block
from avit_jax.models.family import Family
from avit_jax.models.functional import layer_at, scan_layers
from avit_jax.models.norms import of_images
from avit_jax.models.shape import Shape
from avit_jax.types import Output, Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A dense model has no options."""


class Model(base.Model):
    """Every block on every token."""

    name = "dense"
    adaptive = False
    has_image_rows = True

    def forward(self, network: Backbone, images: Array, call: Call) -> Output:
        tokens = embed(network, images, call)

        def layer(block: Block, x: Array, inputs: dict) -> tuple[Array, Array | None]:
            rate, key = inputs["drop_path_rate"], inputs.get("key")
            record = {}
            if call.features and self.shape.num_class_tokens and not block.keeps_slots:
                record["attention"] = block.attention.class_row(of_images(block.norm1, x))
            x, scores = block.attend_and_score(
                x, bias=inputs.get("bias"), drop_path_rate=rate, key=key
            )
            if "relations" in call.shown:
                record["relations"] = scores().astype(x.dtype)
            x = block.feed(x, extra=inputs.get("extra"), drop_path_rate=rate, key=key)
            return x, record | ({"features": x} if call.features else {})

        x, record = scan_layers(
            layer,
            network.blocks,
            tokens,
            layer_inputs(self.shape, call),
            remat=self.shape.remat,
            unrolled=self.shape.unrolled,
        )
        heads = network.readout(network.read(x))
        return Output(
            logits=heads.mean(0),
            usage=(Usage(tokens=jnp.ones((self.shape.depth, *x.shape[:2]), bool)),),
            aux={"head_logits": heads} | record | ({"states": x} if "states" in call.shown else {}),
        )

    def compact(self, network: Backbone, images: Array, exists: Array, plan: Plan) -> Output:
        """See `base.Model.compact`; there is nothing to leave out."""
        return dense(network, images, plan)

    def compact_gmacs(self, usage: tuple[Usage, ...], plan: Plan) -> float:
        return dense_gmacs(self.shape, usage[0].tokens.shape[1], plan)

    def compact_exit(
        self, network: Backbone, images: Array, exists: Array, plan: Plan, call: Call
    ) -> Output:
        """See `AsExit.compact_exit`: of an exit that shows nothing, what is read in the end."""
        if call.shown:
            return self.forward(network, images, call)
        return exit_in_the_end(network, images, call.reused or Reused(), plan)

    def compact_exit_gmacs(self, usage: Usage, plan: Plan, *, shown: Sequence[str]) -> float:
        """See `AsExit.compact_exit_gmacs`."""
        count = costs.dense_gmacs if shown else costs.dense_inference_gmacs
        return count(self.shape) * usage.tokens.shape[1]


def exit_in_the_end(network: Backbone, images: Array, reused: Reused, plan: Plan) -> Output:
    """Every token in every layer but the last, of which only what heads read is computed."""
    shape = network.shape
    front, last = shape.num_last_tokens, shape.depth - 1

    def given(layer: Array | int) -> Given:
        return Given(layer=layer, extra=reused.extra, bias=reused.bias)

    def layer(tokens: Array, index: Array) -> tuple[Array, None]:
        block = layer_at(network.blocks, index)
        return whole_block(block, tokens, None, given(index), plan)[0], None

    tokens = network.embed(images)
    tokens, _ = lax.scan(layer, tokens, jnp.arange(last), unroll=plan.unrolled)
    answer = last_block(
        layer_at(network.blocks, last),
        tokens,
        prefix=front,
        bias=given(last).of_queries(front),
        extra=given(last).of_prefix(front),
    )
    everything = jnp.ones((shape.depth, *tokens.shape[:2]), bool)
    heads = network.readout(network.read(answer))
    return Output(logits=heads.mean(0), usage=(Usage(tokens=everything),))


def families(backbones: Iterable[Family[Shape]]) -> list[Family[Model]]:
    """The backbones under their own names, as they are."""
    return [
        dataclasses.replace(
            family,
            members={name: Model(shape, Settings()) for name, shape in family.members.items()},
        )
        for family in backbones
    ]
