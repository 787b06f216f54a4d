"""What all backbones share: prefix tokens, stacked blocks, a norm and linear classifiers.

A backbone turns images into tokens (`embed`), owns the stacked `blocks`, and turns the tokens that
classifiers read (`read`) into logits (`readout`). What happens in between is the method's. A
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

REGISTERS = "reg_token"


class Backbone(nnx.Module):
    """Parameters behind the patch embedding; subclasses add that, and `patches`."""

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs):
        dim, dtype = shape.embed_dim, jnp.dtype(shape.dtype)
        self.shape = shape
        for name, count in _prefix_of(shape).items():
            token = token_initializer(rngs.params(), (1, count, dim))
            setattr(self, name, nnx.Param(token))
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
        prefix = {
            name: jnp.broadcast_to(token, (images.shape[0], *token.shape[1:]))
            for name in _prefix_of(self.shape)
            for token in [getattr(self, name)[...]]
        }
        registers = [prefix.pop(REGISTERS)] if REGISTERS in prefix else []
        table = self.pos_embed[...] if hasattr(self, "pos_embed") else None
        if table is not None and not self.shape.pos_embed_prefix:
            patches, table = patches + table, None
        tokens = jnp.concatenate([*prefix.values(), patches], axis=1)
        if table is not None:
            tokens = tokens + table
        if registers:
            answers, patches = jnp.split(tokens, [self.shape.num_answer_tokens], axis=1)
            tokens = jnp.concatenate([answers, *registers, patches], axis=1)
        return tokens.astype(self.shape.dtype if dtype is None else dtype)

    def read(self, tokens: Array) -> Array:
        """What `readout` takes, `[B, num_read, D]`, of tokens `[B, >= num_last_tokens, D]`."""
        states = tokens[:, self.shape.read]
        if self.shape.averages:
            return states.mean(1, keepdims=True, dtype=jnp.float32)
        return states

    def readout(self, states: Array) -> Array:
        """Logits of every head, `[heads, B, C]` float32, from what `read` gives, `[B, >= 1, D]`.

        The answer is their mean: one head, or with distillation the class and distillation heads.
        """
        if self.shape.averages and states.shape[1] != 1:
            raise ValueError(f"readout got {states.shape[1]} tokens: give it what read returns.")
        features = self.norm(states[:, : self.shape.num_read])
        several = self.shape.num_read - self.shape.distilled
        classes = features[:, 0]
        if several > 1:
            merge = {"mean": jnp.mean, "sum": jnp.sum}[self.shape.class_token_merge]
            classes = merge(features[:, :several], axis=1)
        heads = [self.head(classes)]
        if self.shape.distilled:
            heads.append(self.head_dist(features[:, -1]))
        return jnp.stack(heads).astype(jnp.float32)


def _prefix_of(shape: Shape) -> dict[str, int]:
    """Names of the parameters in front of the patches, with how many tokens each is."""
    counts = {
        "cls_token": shape.num_class_tokens,
        "dist_token": int(shape.distilled),
        REGISTERS: shape.num_registers,
    }
    return {name: count for name, count in counts.items() if count}
