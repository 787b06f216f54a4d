"""The rules by which tokens halt: from a layer's states to who goes on, in one place.

Every execution runs blocks in its own way and asks the same two questions behind each: the `score`
of every token, and what a `step` with these scores makes of `halting.Halting`. A rule is one
function here and one setting; with the settings as they are by default all of it is A-ViT's.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from avit_jax.methods.avit import halting
from avit_jax.methods.avit.settings import Settings
from avit_jax.methods.forward import Call
from avit_jax.models.shape import Shape


@struct.dataclass(kw_only=True)
class Rules:
    """How the tokens of one network halt.

    Attributes:
        settings: of the method.
        layers: layers that run, the last of which ends every token.
        strength: factor on the scores, float32: how far halting is switched on; `None` for wholly.
    """

    settings: Settings = struct.field(pytree_node=False)
    layers: int = struct.field(pytree_node=False)
    strength: Array | None = None

    def score(self, x: Array, layer: Array | int) -> Array:
        """Halting scores `[B, N]` float32 of tokens `[B, N, D]`: one existing channel, squashed.

        Args:
            x: states behind a layer, of any selection of tokens.
            layer: number of that layer, from 0; may be traced.
        """
        del layer
        channel = x[:, :, 0].astype(jnp.float32)
        return jax.nn.sigmoid(self.settings.gate_scale * channel - self.settings.gate_center)

    def step(
        self, state: halting.Halting, score: Array, layer: Array | int
    ) -> tuple[halting.Halting, Array]:
        """Account for one executed layer.

        Args:
            state: in front of the layer; tokens that did not run must not be live there.
            score: `[B, N]`, from `score` where tokens ran, anything elsewhere.
            layer: its number, from 0; may be traced.

        Returns:
            As `halting.step`: the state behind the layer, and the weights of its states.
        """
        return halting.step(state, self.spent(score, layer), eps=self.settings.eps)

    def spent(self, score: Array, layer: Array | int) -> Array:
        """What each token spends in a layer unless it halts there, `[B, N]`; 1 in the last."""
        if self.strength is not None:
            score = self.strength * score
        return jnp.where(layer == self.layers - 1, 1.0, score)

    def margin(self, record: dict[str, Array]) -> Array:
        """How far each image's closest decision is from going the other way, `[B]`.

        Args:
            record: of the layers that run, `cumulative` `[L, B, N]`.
        """
        return jnp.abs(record["cumulative"] - (1.0 - self.settings.eps)).min((0, 2))


def rules_of(
    shape: Shape, settings: Settings, network: Any, images: Array, call: Call | None = None
) -> Rules:
    """The rules of a network for a batch.

    Args:
        shape: of the network.
        settings: of the method.
        network: with its parameters.
        images: `[B, H, W, 3]`, normalised.
        call: of `forward`, which may switch halting on little by little or not at all.
    """
    del network, images
    strength, dense = None, call is not None and call.dense
    if call is not None:
        strength = jnp.float32(0.0) if dense else jnp.asarray(settings.strength(call.progress))
    return Rules(
        settings=settings,
        layers=shape.depth if dense else settings.layers(shape.depth),
        strength=strength,
    )


def behind(per_layer: Array, depth: int) -> Array:
    """Of the layers that run as of all `depth` layers, `[L, ...]`: 0 for those behind."""
    missing = depth - len(per_layer)
    if not missing:
        return per_layer
    return jnp.pad(per_layer, ((0, missing), *[(0, 0)] * (per_layer.ndim - 1)))
