"""A method of somebody else: patches are dropped once, for good, behind a given block.

At random in training, as in token dropping (Hou et al., arXiv 2203.13240); in inference the patches
of the smallest norm. It lies outside the package, and no line of the package knows it.

Why leaving dropped patches out is exact: they are no keys, and only the class token is read.
"""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from avit_jax.errors import UserError
from avit_jax.execution.dense import last_block
from avit_jax.execution.image_groups import filled_up
from avit_jax.execution.plan import Plan
from avit_jax.methods import base
from avit_jax.methods.forward import Call, embed, layer_inputs
from avit_jax.models import costs
from avit_jax.models.backbone import Backbone
from avit_jax.models.block import Block
from avit_jax.models.functional import layer_at, scan_layers
from avit_jax.models.vit import ViTShape
from avit_jax.types import Dial, Gates, Output, Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of random dropping.

    Attributes:
        keep: share of the patches that stay.
        whole_blocks: blocks at the beginning that run all tokens.
    """

    keep: float = 0.5
    whole_blocks: int = 1

    def __post_init__(self):
        # The dial passes traced values, which nobody can look at.
        if isinstance(self.keep, numbers.Real) and not 0.0 <= self.keep <= 1.0:
            raise UserError(f"keep is {self.keep}: write a share, 0 to 1.")

    def number(self, patches: int, numpy: Any = np) -> Any:
        """How many patches stay, at least one; `jax.numpy` where `keep` is traced."""
        return numpy.clip(numpy.round(numpy.float32(self.keep) * np.float32(patches)), 1, patches)


@dataclasses.dataclass(frozen=True)
class Model(base.Model):
    """Random dropping on any backbone."""

    settings: Settings
    name = "random_drop"

    @property
    def draws(self) -> bool:
        """See `base.Model.draws`: which patches stay."""
        return True

    def forward(self, network: Backbone, images: Array, call: Call) -> Output:
        """See `base.Model.apply`."""
        tokens, prefix = embed(network, images, call), self.shape.num_prefix_tokens
        everything = jnp.ones(tokens.shape[:2], bool)
        patches = tokens.shape[1] - prefix
        number = patches if call.dense else self.settings.number(patches, jnp)
        noise = call.noise
        if call.train and noise is None:
            key = jax.random.fold_in(call.key, self.shape.depth + 2)
            noise = jax.random.uniform(key, (len(images), patches))

        def layer(block: Block, carry: tuple, inputs: dict) -> tuple[tuple, dict]:
            x, live, margin = carry
            gates = Gates(tokens=live)
            rate, key = inputs["drop_path_rate"], inputs.get("key")
            before = live
            x = block.attend(x, gates=gates, drop_path_rate=rate, key=key)
            x = block.feed(x, gates=gates, drop_path_rate=rate, key=key)
            score = norms(x[:, prefix:]) if noise is None else noise
            kept = jnp.argsort(jnp.argsort(-score)) < number
            chosen = everything.at[:, prefix:].set(kept)
            closest = jnp.where(kept, score, jnp.inf).min(1)
            closest -= jnp.where(kept, -jnp.inf, score).max(1)
            now = inputs["index"] == self.settings.whole_blocks - 1
            live, margin = jnp.where(now, chosen, live), jnp.where(now, closest, margin)
            return (x, live, margin), {"live": before} | ({"features": x} if call.features else {})

        (x, _, margin), record = scan_layers(
            layer,
            network.blocks,
            (tokens, everything, jnp.full(images.shape[:1], jnp.inf)),
            layer_inputs(self.shape, call),
            remat=self.shape.remat,
        )
        heads = network.readout(x)
        return Output(
            logits=heads.mean(0),
            usage=(Usage(tokens=record.pop("live")),),
            aux=record | {"head_logits": heads, "margin": margin},
        )

    def compact(self, network: Backbone, images: Array, exists: Array, plan: Plan) -> Output:
        """See `base.Model.compact`; the number of patches is the same for all images."""
        shape, prefix, first = (
            network.shape,
            self.shape.num_prefix_tokens,
            self.settings.whole_blocks,
        )

        def block(index: Array, x: Array, positions: Array | None = None) -> Array:
            here = layer_at(network.blocks, index)
            return here.feed(here.attend(x, positions=positions))

        tokens = lax.fori_loop(0, first, block, network.embed(images))
        number = int(self.settings.number(tokens.shape[1] - prefix))
        _, kept = lax.top_k(norms(tokens[:, prefix:]), number)
        front = jnp.broadcast_to(jnp.arange(prefix), (len(images), prefix))
        positions = jnp.concatenate([front, prefix + kept], axis=1)
        few = jnp.take_along_axis(tokens, positions[:, :, None], axis=1)
        few = lax.fori_loop(
            first, shape.depth - 1, lambda index, x: block(index, x, positions), few
        )
        last = layer_at(network.blocks, shape.depth - 1)
        heads = network.readout(last_block(last, few, prefix=prefix, positions=positions))
        live = jnp.zeros(tokens.shape[:2], bool)
        live = live.at[jnp.arange(len(images))[:, None], positions].set(True)
        whole = (jnp.arange(shape.depth) < first)[:, None, None]
        return Output(logits=heads.mean(0), usage=(Usage(tokens=whole | live),))

    def compact_gmacs(self, usage: tuple[Usage, ...], plan: Plan) -> float:
        """See `base.Model.compact_gmacs`; all images cost the same."""
        needed = costs.inference_gmacs(self.shape, usage[0])
        return float(needed.mean() * filled_up(len(needed), plan.images))

    def dial(self) -> Dial:
        """See `base.Model.dial`: the share that stays."""
        own = self.settings.keep
        return Dial(lambda position: {"keep": min(max(own + position, 0.0), 1.0)}, -1.0, 1.0)


def norms(tokens: Array) -> Array:
    """Lengths `[B, N]` float32 of tokens `[B, N, D]`."""
    return jnp.linalg.norm(tokens.astype(jnp.float32), axis=-1)


TINY = Model(ViTShape(embed_dim=192, depth=12, num_heads=3), Settings(whole_blocks=3))
MICRO = Model(
    ViTShape(embed_dim=24, depth=3, num_heads=2, patch_size=8, image_size=32, num_classes=10),
    Settings(),
)
NOT_A_MODEL = "something else"
