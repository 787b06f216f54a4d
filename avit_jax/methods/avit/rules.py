"""The rules by which tokens halt: from a layer's states to who goes on, in one place.

Every execution runs blocks in its own way and asks the same two questions behind each: the `score`
of every token, and what a `step` with these scores makes of `halting.Halting`. A rule is one
function here and one setting; with the settings as they are by default all of it is A-ViT's.

Layers are counted from 0 here and from 1 in the settings.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from avit_jax.methods.avit import halting, spread
from avit_jax.methods.avit.settings import Settings
from avit_jax.methods.forward import Call
from avit_jax.models.shape import Shape

# Of the threshold, where sums stay that may not pass it yet: below it by far more than the rounding
# of a sum of scores, and so near that what is left to the remainder is little more than `eps`.
HELD = 1.0 - 2.0**-10


@struct.dataclass(kw_only=True)
class Rules:
    """How the tokens of one network halt.

    Attributes:
        shape: of the network.
        settings: of the method.
        layers: layers that run, the last of which ends every token.
        strength: factor on the scores, float32: how far halting is switched on; `None` for wholly.
        offsets: `[L]` float32, what the layers' gates have learnt, or `None`.
        content: `[B]` uint32, of the images, where it is drawn who takes neighbours along.
    """

    shape: Shape = struct.field(pytree_node=False)
    settings: Settings = struct.field(pytree_node=False)
    layers: int = struct.field(pytree_node=False)
    strength: Array | None = None
    offsets: Array | None = None
    content: Array | None = None

    def score(self, x: Array, layer: Array | int) -> Array:
        """Halting scores `[B, N]` float32 of tokens `[B, N, D]`: one existing channel, squashed.

        Args:
            x: states behind a layer, of any selection of tokens.
            layer: number of that layer; may be traced.
        """
        channel = x[:, :, 0].astype(jnp.float32)
        score = jax.nn.sigmoid(self.settings.gate_scale * channel - self.center(layer))
        if self.settings.halt_from > 1:
            score = jnp.where(layer < self.settings.halt_from - 1, 0.0, score)
        return score

    def center(self, layer: Array | int) -> Array | float:
        """Offset of a layer's gate: that of all layers, and its own."""
        center = self.settings.gate_center
        own = [self.settings.layer_centers, self.offsets]
        for offsets in (jnp.asarray(part, jnp.float32) for part in own if part is not None):
            center = center + jax.lax.dynamic_index_in_dim(offsets, layer, keepdims=False)
        return center

    def step(
        self,
        state: halting.Halting,
        score: Array,
        layer: Array | int,
        index: Array | None = None,
    ) -> tuple[halting.Halting, Array]:
        """Account for one executed layer.

        Args:
            state: in front of the layer; tokens that did not run must not be live there.
            score: `[B, n]`, from `score` where tokens ran, any finite number elsewhere.
            layer: its number; may be traced.
            index: `[B, n]`, which token of its image each is, where not all N are there; no two are
                the same.

        Returns:
            As `halting.step`: the state behind the layer, and the weights of its states.
        """
        spent = self.spent(state.cumulative, score, layer)
        along = None
        if self.settings.takes_along:
            along = self._along(layer, index)
        return halting.step(state, spent, eps=self.settings.eps, along=along)

    def spent(self, cumulative: Array, score: Array, layer: Array | int) -> Array:
        """What each token spends in a layer unless it halts there, `[B, n]`; 1 in the last.

        Args:
            cumulative: `[B, n]`, what it has spent so far.
            score: `[B, n]`.
            layer: number of the layer.
        """
        settings = self.settings
        if self.strength is not None:
            score = self.strength * score
        may = may_halt(self.shape, settings)
        if not may.all():  # the prefix stands in front of any selection of tokens
            score = jnp.where(may[: score.shape[1]], score, 0.0)
        if settings.min_depth > 1:
            room = jnp.maximum(HELD * (1.0 - settings.eps) - cumulative, 0.0)
            is_held = layer < settings.min_depth - 1
            score = jnp.where(is_held, jnp.minimum(score, room), score)
        return jnp.where(layer == self.layers - 1, 1.0, score)

    def margin(self, record: dict[str, Array]) -> Array:
        """How far each image's closest decision is from going the other way, `[B]`.

        Args:
            record: of the layers that run, `cumulative` `[L, B, N]` and `mask`, who ran there.
        """
        distance = jnp.abs(record["cumulative"] - (1.0 - self.settings.eps))
        if self.settings.takes_along:  # who was taken along is scored on, below the threshold
            distance = jnp.where(record["mask"], distance, jnp.inf)
        return distance[self.settings.min_depth - 1 :].min((0, 2))

    def _along(self, layer: Array | int, index: Array | None):
        """From the tokens that end in a layer to those that halt with them, both `[B, n]` bool."""
        settings, shape = self.settings, self.shape
        last = self.layers if settings.spread_until is None else settings.spread_until
        there = (layer >= settings.spread_from - 1) & (layer <= last - 1)

        def along(ended: Array) -> Array:
            draws = None
            if settings.draws_spread:
                behind = layer - (settings.spread_from - 1)
                share = settings.spread_share - settings.spread_decay * behind
                draws = spread.draws(self.content, layer, share, shape.grid**2)
            if index is not None:
                ended = spread.at_their_places(ended, index, shape.num_tokens)
            offsets = spread.offsets_of(settings.spread)
            found = there & spread.taken_along(ended, draws, shape, offsets)
            return found if index is None else jnp.take_along_axis(found, index, axis=1)

        return along


def rules_of(
    shape: Shape,
    settings: Settings,
    network: Any,
    *,
    images: Array | None = None,
    content: Array | None = None,
    call: Call | None = None,
) -> Rules:
    """The rules of a network for a batch.

    Args:
        shape: of the network.
        settings: of the method.
        network: with its parameters.
        images: `[B, H, W, 3]`, normalised; or
        content: of them, from rules that were made of them before.
        call: of `forward`, which may switch halting on little by little or not at all.
    """
    dense = call is not None and call.dense
    strength = None
    if call is not None:
        strength = jnp.float32(0.0) if dense else jnp.asarray(settings.strength(call.progress))
    if images is not None and settings.draws_spread:
        content = spread.content_of(images)
    return Rules(
        shape=shape,
        settings=settings,
        layers=shape.depth if dense else settings.layers(shape.depth),
        strength=strength,
        offsets=network.gate_offsets[...] if settings.learn_gates else None,
        content=content,
    )


def may_halt(shape: Shape, settings: Settings) -> np.ndarray:
    """Which tokens may halt before the last layer, `[N]` bool; the others' weight is all there.

    They obey `max_depth` all the same, and go on being keys for others until then.
    """
    answers, patches = settings.class_tokens_halt, shape.grid**2
    if answers is None:
        answers = shape.num_class_tokens == 1
    return np.repeat(
        [answers, settings.registers_halt, True],
        [shape.num_answer_tokens, shape.num_registers, patches],
    )


def behind(per_layer: Array, depth: int) -> Array:
    """Of the layers that run as of all `depth` layers, `[L, ...]`: 0 for those behind."""
    missing = depth - len(per_layer)
    if not missing:
        return per_layer
    return jnp.pad(per_layer, ((0, missing), *[(0, 0)] * (per_layer.ndim - 1)))
