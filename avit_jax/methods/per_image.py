"""What a model says about each image of a batch: the one place that reads it off an `Output`.

The log of a training, evaluation, prediction, pictures and exported programs take their figures
from here, so that a word such as "depth" means the same in all of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from avit_jax.methods.base import Model
from avit_jax.models import skippable_parts
from avit_jax.models.shape import Shape
from avit_jax.types import Output


@struct.dataclass(kw_only=True)
class PerImage:
    """What there is to say about the images of a batch; the batch in front everywhere.

    Attributes:
        class_index: `[B]` int32, the class with the highest probability; any where there is none.
        confidence: `[B]` float32, that probability, 0..1; NaN where any logit is not finite, so
          that nobody takes the answer for one (`errors.NOT_FINITE`).
        token_depth: `[B, N]` int32, layers that ran for each token, see `token_depth`.
        gmacs: `[B]` float32, multiply-adds in units of 1e9.
        kept: share of each part that the method may leave out (`skippable_parts.PARTS`) that ran,
          `[B]` float32, 0..1, by the name of the part.
        dropped: `[B]`, live tokens that found no place, over all layers; `None` for executions that
          have a place for each.
        exit: `[B]` int32, the stage that answered, from 0; `None` for models with one exit.
    """

    class_index: Array
    confidence: Array
    token_depth: Array
    gmacs: Array
    kept: dict[str, Array]
    dropped: Array | None = None
    exit: Array | None = None

    @property
    def depth(self) -> Array:
        """Mean over the tokens of the layers that ran, `[B]` float32."""
        return self.token_depth.mean(-1)


def per_image(model: Model, output: Output) -> PerImage:
    """All that `output` says about its images, under any execution of `model`."""
    finite = jnp.isfinite(output.logits).all(-1, keepdims=True)
    probabilities = jnp.where(finite, jax.nn.softmax(output.logits), jnp.nan)
    dropped = output.aux.get("dropped")  # [L, B]
    ran = jnp.stack([usage.tokens.any((0, 2)) for usage in output.usage])  # [stages, B]
    return PerImage(
        class_index=probabilities.argmax(-1),
        confidence=probabilities.max(-1),
        token_depth=token_depth(model, output),
        gmacs=model.gmacs(output),
        kept=skippable_parts.shares(output.usage),
        dropped=None if dropped is None else dropped.sum(0),
        exit=None if output.exits is None else ran.sum(0) - 1,
    )


def token_depth(model: Model, output: Output) -> Array:
    """Layers that ran for each token, `[B, N]` int32; none run for an image that is finished.

    Layers of several stages add up on the grid of the finest: a patch of a coarser stage stands for
    all that it covers.
    """
    return tokens_run(model, output).sum(0)


def tokens_run(model: Model, output: Output) -> Array:
    """Tokens that each layer of each stage computed, `[L, B, N]` bool on the finest grid."""
    stages = zip(model.stages, output.usage, strict=True)
    finest = finest_stage(model)
    return jnp.concatenate([_on_grid(usage.tokens, shape, finest) for shape, usage in stages])


def finest_stage(model: Model) -> Shape:
    """The stage with the most patches, on whose tokens depths are given."""
    return max(model.stages, key=lambda shape: shape.grid)


def num_layers(model: Model) -> int:
    """Layers of all stages, which is the depth of a token that goes through everything."""
    return sum(shape.depth for shape in model.stages)


def _on_grid(tokens: Array, shape: Shape, finest: Shape) -> Array:
    """Values `[L, B, N]` of a stage's tokens, spread over the tokens of the finest stage."""
    if shape.grid == finest.grid:
        return tokens
    prefix, patches = jnp.split(tokens, [shape.num_prefix_tokens], axis=2)
    place = (2 * np.arange(finest.grid) + 1) * shape.grid // (2 * finest.grid)
    patches = patches.reshape(*tokens.shape[:2], shape.grid, shape.grid)
    patches = patches[:, :, place][:, :, :, place].reshape(*tokens.shape[:2], -1)
    return jnp.concatenate([prefix, patches], axis=2)
