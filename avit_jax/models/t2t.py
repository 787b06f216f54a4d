"""T2T-ViT (Yuan et al., ICCV 2021, arXiv 2101.11986) as a backbone: overlapping windows as patches.

Tokens come from three soft splits with attention between them (`soft_split.py`), positions are a
fixed table of sinusoids, blocks are those of a ViT.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from avit_jax import validators
from avit_jax.models import attention
from avit_jax.models.backbone import Backbone, Shape
from avit_jax.models.layers import BlockShape, linear
from avit_jax.models.positions import SinusoidPositions
from avit_jax.models.soft_split import LAYERS, NORM_EPS, SPLITS, soft_split

COLOURS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2TShape(Shape):
    """A tokens-to-token vision transformer; see `Shape` for the rest.

    Attributes:
        qkv_bias: as there; published models have none.
        tokens: attention between the soft splits, "performer" or "transformer".
        token_dim: its width.
        token_dropout_rate: dropout of the performer's updates; published training uses 0.1 whatever
            the other rates.
        attention_scale: factor on attention scores in the blocks; `(embed_dim / num_heads) ** -0.5`
            if unset. Upstream's code takes `embed_dim ** -0.5` when it is asked for pretrained
            weights.
    """

    qkv_bias: bool = False
    tokens: str = "performer"
    token_dim: int = 64
    token_dropout_rate: float = 0.1
    attention_scale: float | None = None

    def __post_init__(self):
        super().__post_init__()
        validators.one_of(tuple(LAYERS), self, "tokens")
        validators.at_least(2, self, "token_dim")
        validators.positive(self, "attention_scale", optional=True)
        validators.share_below_one(self, "token_dropout_rate")

    @property
    def attention_can_be_fused(self) -> bool:
        """See `Shape.attention_can_be_fused`; token transformers have one head of `token_dim`."""
        between = self.tokens == "performer" or attention.can_be_fused(
            dtype=self.dtype, head_dim=self.token_dim
        )
        return between and super().attention_can_be_fused

    def build(self, rngs: nnx.Rngs) -> T2TViT:
        """See `Shape.build`."""
        return T2TViT(self, rngs=rngs)

    @property
    def patch_size(self) -> int:
        """Pixels between the centres of two tokens; the windows overlap."""
        return int(np.prod([split.stride for split in SPLITS]))

    @property
    def block(self) -> BlockShape:
        """See `Shape.block`."""
        return dataclasses.replace(
            super().block, norm_eps=NORM_EPS, attention_scale=self.attention_scale
        )

    @property
    def draws(self) -> bool:
        """See `Shape.draws`."""
        return super().draws or (self.tokens == "performer" and self.token_dropout_rate > 0)

    @property
    def frozen(self) -> frozenset[str]:
        """See `Shape.frozen`: also a performer's random features."""
        random = {f"tokens_to_token.performer{number}.w" for number in (1, 2)}
        return super().frozen | (random if self.tokens == "performer" else set())

    @property
    def position_encoding(self) -> SinusoidPositions:
        """See `Shape.position_encoding`."""
        return SinusoidPositions()

    @property
    def split_dims(self) -> tuple[int, ...]:
        """Channels of a window in each soft split."""
        channels = (COLOURS, *[self.token_dim] * (len(SPLITS) - 1))
        return tuple(c * split.size**2 for c, split in zip(channels, SPLITS, strict=True))

    @property
    def embedding_macs(self) -> int:
        """See `Shape.embedding_macs`."""
        side, total = self.image_size, 0
        for split, dim in zip(SPLITS[:-1], self.split_dims[:-1], strict=True):
            side //= split.stride
            total += LAYERS[self.tokens].macs(side**2, dim, self.token_dim)
        return total + self.grid**2 * self.split_dims[-1] * self.embed_dim


class TokensToToken(nnx.Module):
    """Images `[B, H, W, 3]` to patch tokens `[B, grid * grid, D]`."""

    def __init__(self, shape: T2TShape, *, rngs: nnx.Rngs):
        self.tokens, self.rate = shape.tokens, shape.token_dropout_rate
        layer = partial(LAYERS[shape.tokens], dtype=jnp.dtype(shape.dtype), rngs=rngs)
        if shape.tokens == "transformer":
            layer = partial(layer, fused=shape.fused_attention)
        for number, inputs in enumerate(shape.split_dims[:-1], start=1):
            # The kind is part of the name because upstream's names of the two kinds differ.
            setattr(self, f"{shape.tokens}{number}", layer(inputs, shape.token_dim))
        self.project = linear(
            shape.split_dims[-1], shape.embed_dim, dtype=jnp.dtype(shape.dtype), rngs=rngs
        )

    def __call__(self, images: Array, key: Array | None) -> Array:
        """See the class; `key` is for dropout."""
        grid = images
        for number, split in enumerate(SPLITS):
            if number:
                layer = getattr(self, f"{self.tokens}{number}")
                flat = grid.reshape(grid.shape[0], -1, grid.shape[-1])
                draw = None if key is None else jax.random.fold_in(key, number)
                grid = layer(flat, rate=self.rate, key=draw).reshape(*grid.shape[:3], -1)
            grid = soft_split(grid, split)
        return self.project(grid.reshape(grid.shape[0], -1, grid.shape[-1]))


class T2TViT(Backbone):
    """Tokens from soft splits, with sinusoid positions."""

    def __init__(self, shape: T2TShape, *, rngs: nnx.Rngs):
        self.tokens_to_token = TokensToToken(shape, rngs=rngs)
        super().__init__(shape, rngs=rngs)

    def patches(self, images: Array, key: Array | None) -> Array:
        """See `Backbone.patches`."""
        return self.tokens_to_token(images, key)
