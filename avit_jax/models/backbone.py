"""What all backbones share: prefix tokens, stacked blocks, a norm and linear classifiers.

A backbone turns images into tokens (`embed`), owns the stacked `blocks`, and turns the class token
(and the distillation token) into logits (`readout`). What happens in between is the method's. A
backbone's file holds a `Shape` and a `Backbone` that differ in how patches become tokens, and the
sizes that have names (`FAMILIES`).
"""

from __future__ import annotations

import abc

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from avit_jax.errors import UserError
from avit_jax.models import functional
from avit_jax.models.block import Block
from avit_jax.models.layers import linear
from avit_jax.models.norms import NORMS, of_single_tokens
from avit_jax.models.positions import token_initializer
from avit_jax.models.shape import Shape


class Backbone(nnx.Module):
    """Parameters behind the patch embedding; subclasses add that, and `patches`."""

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs):
        dim, dtype = shape.embed_dim, jnp.dtype(shape.dtype)
        self.shape = shape
        self.cls_token = nnx.Param(token_initializer(rngs.params(), (1, 1, dim)))
        if shape.distilled:
            self.dist_token = nnx.Param(token_initializer(rngs.params(), (1, 1, dim)))
        table = shape.position_encoding.table(dim, rngs)
        if table is not None:
            self.pos_embed = nnx.Param(table)
        self.blocks = functional.stack(
            lambda rngs: Block(shape.block, rngs=rngs), shape.depth, rngs
        )
        # It is given the few tokens that classifiers read.
        norm = NORMS[of_single_tokens(shape.norm)]
        self.norm = norm(dim, eps=shape.norm_eps, dtype=dtype, rngs=rngs)
        self.head = linear(dim, shape.num_classes, dtype=dtype, rngs=rngs)
        if shape.distilled:
            self.head_dist = linear(dim, shape.num_classes, dtype=dtype, rngs=rngs)

    @abc.abstractmethod
    def patches(self, images: Array, key: Array | None) -> Array:
        """Images `[B, H, W, 3]` of the right size to patch tokens `[B, grid * grid, D]` float32."""

    def embed(
        self, images: Array, key: Array | None = None, *, dtype: DTypeLike | None = None
    ) -> Array:
        """Images `[B, H, W, 3]`, normalised, to tokens `[B, N, D]` with their positions.

        Args:
            images: of the shape's size.
            key: draws of training where the patch embedding has any; without one, there are none.
            dtype: of the tokens, to which blocks add their updates; the arithmetic's by default.
        """
        size = self.shape.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UserError(
                f"images have shape {tuple(images.shape)}, but this model takes "
                f"[B, {size}, {size}, 3]: resize them or create the model with another image_size."
            )
        patches = self.patches(images.astype(self.shape.dtype), key).astype(jnp.float32)
        prefix = [self.cls_token[...], *([self.dist_token[...]] if self.shape.distilled else [])]
        prefix = [jnp.broadcast_to(token, (images.shape[0], *token.shape[1:])) for token in prefix]
        tokens = jnp.concatenate([*prefix, patches], axis=1)
        if hasattr(self, "pos_embed"):
            tokens = tokens + self.pos_embed[...]
        return tokens.astype(self.shape.dtype if dtype is None else dtype)

    def readout(self, prefix: Array) -> Array:
        """Logits of every head, `[heads, B, C]` float32, from `[B, >= num_prefix_tokens, D]`.

        The answer is their mean: one head, or with distillation the class and distillation heads.
        """
        features = self.norm(prefix[:, : self.shape.num_prefix_tokens])
        heads = [self.head(features[:, 0])]
        if self.shape.distilled:
            heads.append(self.head_dist(features[:, 1]))
        return jnp.stack(heads).astype(jnp.float32)
