"""A cascade in tests alone: a network of coarse patches, and one of fine ones for who is not sure.

The hand-over of features and relations is left out; what is shown is that a model of several stages
is counted, answered for and trained like any other.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from avit_jax.execution.dense import dense_gmacs
from avit_jax.methods import base, plain
from avit_jax.methods.forward import Call
from avit_jax.models.vit import ViTShape
from avit_jax.types import Output, Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The probability above which the first answer is final."""

    confidence: float = 0.5


class Networks(nnx.Module):
    """One network for each stage."""

    def __init__(self, stages, *, rngs):
        self.coarse, self.fine = (shape.build(rngs) for shape in stages)


class Model(base.Model):
    """Two plain vision transformers, one after the other; `shape` is that of the coarse one."""

    name = "two_exits"
    one_network = False

    @property
    def stages(self):
        return self.shape, dataclasses.replace(self.shape, patch_size=self.shape.patch_size // 2)

    def build(self, rngs):
        return Networks(self.stages, rngs=rngs)

    def forward(self, network, images, call):
        networks = zip(self.stages, (network.coarse, network.fine), strict=True)
        first, second = (
            plain.Model(shape, plain.Settings()).forward(part, images, call)
            for shape, part in networks
        )
        distance = jax.nn.softmax(first.logits).max(-1) - self.settings.confidence
        leaves = jnp.zeros(len(images), bool) if call.dense else distance > 0
        later = second.usage[0].tokens & ~leaves[:, None]
        return Output(
            logits=jnp.where(leaves[:, None], first.logits, second.logits),
            usage=(*first.usage, Usage(tokens=later)),
            exits=jnp.stack(
                [first.logits, jnp.where(leaves[:, None], first.logits, second.logits)]
            ),
            aux={"margin": jnp.abs(distance)},
        )

    def compact(self, network, images, exists, plan):
        output = self.forward(network, images, Call())
        usage = [part.replace(tokens=part.tokens & exists[:, None]) for part in output.usage]
        return output.replace(usage=tuple(usage))

    def compact_gmacs(self, usage, plan):
        batch = usage[0].tokens.shape[1]
        return sum(dense_gmacs(shape, batch, plan) for shape in self.stages)


TWO_EXITS = Model(
    ViTShape(image_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=10),
    Settings(),
)
