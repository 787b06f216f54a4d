"""No adaptive computation: the plain (distilled) vision transformer, DeiT (arXiv 2012.12877).

Nothing is skipped, so masked, dense and compacted execution are one and the same. It is the
baseline that every other method is compared with, and the shortest example of a method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax.numpy as jnp
from jax import Array

from avit_jax.execution.dense import dense, dense_gmacs
from avit_jax.execution.plan import Plan
from avit_jax.methods import base
from avit_jax.methods.forward import Call, embed, layer_inputs
from avit_jax.models.backbone import Backbone, Shape
from avit_jax.models.block import Block
from avit_jax.models.family import Family
from avit_jax.models.functional import scan_layers
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
            if call.features:
                record["attention"] = block.attention.class_row(block.norm1(x))
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
        heads = network.readout(x)
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


def families(backbones: Iterable[Family[Shape]]) -> list[Family[Model]]:
    """The backbones under their own names, as they are."""
    return [
        dataclasses.replace(
            family,
            members={name: Model(shape, Settings()) for name, shape in family.members.items()},
        )
        for family in backbones
    ]
