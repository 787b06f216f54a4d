"""T2T-ViT (Yuan et al., ICCV 2021, arXiv 2101.11986) as a backbone: overlapping windows as patches.

Tokens come from three soft splits with attention between them (`soft_split.py`), positions are a
fixed table of sinusoids by default, blocks are those of a ViT.
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
from avit_jax.errors import UserError
from avit_jax.models.backbone import Backbone
from avit_jax.models.family import Family, Published
from avit_jax.models.fused_attention import can_be_fused
from avit_jax.models.layers import BlockShape, linear
from avit_jax.models.patch_grid import check_tiled, grid_of, splits_of
from avit_jax.models.shape import Shape
from avit_jax.models.soft_split import LAYERS, NORM_EPS, SPLITS, Split, soft_split, windows

COLOURS = 3
# Parts of the attention between soft splits, ours to upstream's.
_UPSTREAM_ATTENTION = {
    "performer": {
        "norm1": "norm1",
        "kqv": "kqv",
        "proj": "proj",
        "norm2": "norm2",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.2",
        "w": "w",
    },
    "transformer": {
        "norm1": "norm1",
        "qkv": "attn.qkv",
        "proj": "attn.proj",
        "norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class T2TShape(Shape):
    """A tokens-to-token vision transformer; see `Shape` for the rest.

    Attributes:
        qkv_bias: as there; published models have none.
        norm_eps: as there, in the blocks; those of the soft splits are layer norms with 1e-5.
        pos_embed: as there; published models have sinusoids of the token's number.
        tokens: attention between the soft splits, "performer" or "transformer".
        token_dim: its width.
        token_dropout_rate: dropout of the performer's updates; published training uses 0.1 whatever
            the other rates.
        attention_scale: factor on attention scores in the blocks; `(embed_dim / num_heads) ** -0.5`
            if unset. Upstream's code takes `embed_dim ** -0.5` when it is asked for pretrained
            weights.
        splits: the three soft splits, each with size, stride and padding of its windows; no setting
            of a config.
    """

    qkv_bias: bool = False
    norm_eps: float = NORM_EPS
    pos_embed: str = "sinusoidal"
    tokens: str = "performer"
    token_dim: int = 64
    token_dropout_rate: float = 0.1
    attention_scale: float | None = None
    splits: tuple[Split, ...] = dataclasses.field(default=SPLITS, metadata={"config": False})

    def __post_init__(self):
        super().__post_init__()
        if self.splits == SPLITS:
            check_tiled(self)
        validators.one_of(tuple(LAYERS), self, "tokens")
        validators.at_least(2, self, "token_dim")
        validators.positive(self, "attention_scale", optional=True)
        if self.attention_scale is not None and self.attention != "dot":
            raise UserError(
                f"attention_scale is {self.attention_scale}, but attention {self.attention!r} has "
                "no such factor: leave attention_scale out."
            )
        validators.share_below_one(self, "token_dropout_rate")

    @property
    def attention_can_be_fused(self) -> bool:
        """See `Shape.attention_can_be_fused`; token transformers have one head of `token_dim`."""
        between = self.tokens == "performer" or can_be_fused(
            dtype=self.dtype, head_dim=self.token_dim
        )
        return between and super().attention_can_be_fused

    def build(self, rngs: nnx.Rngs) -> T2TViT:
        return T2TViT(self, rngs=rngs)

    @property
    def patch_size(self) -> int:
        """Pixels between the centres of two tokens; the windows overlap."""
        return int(np.prod([split.stride for split in self.splits]))

    @property
    def grid(self) -> int:
        return grid_of(self.image_size, self.splits)

    def with_grid(self, grid: int) -> T2TShape:
        """See `Shape.with_grid`; the first soft split is another one."""
        if grid == self.grid:
            return self
        return dataclasses.replace(self, splits=splits_of(self.image_size, grid))

    @property
    def block(self) -> BlockShape:
        return dataclasses.replace(super().block, attention_scale=self.attention_scale)

    @property
    def draws(self) -> bool:
        return super().draws or (self.tokens == "performer" and self.token_dropout_rate > 0)

    @property
    def frozen(self) -> frozenset[str]:
        """See `Shape.frozen`: also a performer's random features."""
        random = {f"tokens_to_token.performer{number}.w" for number in (1, 2)}
        return super().frozen | (random if self.tokens == "performer" else set())

    @property
    def upstream_names(self) -> dict[str, str]:
        """See `Shape.upstream_names`; theirs are the same for both kinds of attention."""
        module = "tokens_to_token"
        return {
            f"{module}.{self.tokens}{number}.{part}": f"{module}.attention{number}.{name}"
            for number in range(1, len(self.splits))
            for part, name in _UPSTREAM_ATTENTION[self.tokens].items()
        }

    @property
    def split_dims(self) -> tuple[int, ...]:
        """Channels of a window in each soft split."""
        channels = (COLOURS, *[self.token_dim] * (len(self.splits) - 1))
        return tuple(c * split.size**2 for c, split in zip(channels, self.splits, strict=True))

    @property
    def embedding_macs(self) -> int:
        side, total = self.image_size, 0
        for split, dim in zip(self.splits[:-1], self.split_dims[:-1], strict=True):
            side = windows(side, split)
            total += LAYERS[self.tokens].macs(side**2, dim, self.token_dim)
        return total + self.grid**2 * self.split_dims[-1] * self.embed_dim


class TokensToToken(nnx.Module):
    """Images `[B, H, W, 3]` to patch tokens `[B, grid * grid, D]`."""

    def __init__(self, shape: T2TShape, *, rngs: nnx.Rngs):
        self.tokens, self.rate, self.splits = shape.tokens, shape.token_dropout_rate, shape.splits
        layer = partial(LAYERS[shape.tokens], dtype=jnp.dtype(shape.dtype), rngs=rngs)
        if shape.tokens == "transformer":
            layer = partial(layer, fused=shape.fused_attention)
        for number, inputs in enumerate(shape.split_dims[:-1], start=1):
            # The kind is part of the name because upstream's names of the two kinds differ.
            setattr(self, f"{shape.tokens}{number}", layer(inputs, shape.token_dim))
        self.project = linear(
            shape.split_dims[-1],
            shape.embed_dim,
            dtype=jnp.dtype(shape.dtype),
            result=jnp.float32,
            rngs=rngs,
        )

    def __call__(self, images: Array, key: Array | None) -> Array:
        """See the class; `key` is for dropout."""
        grid = images
        for number, split in enumerate(self.splits):
            if number:
                layer = getattr(self, f"{self.tokens}{number}")
                flat = grid.reshape(grid.shape[0], -1, grid.shape[-1])
                draw = None if key is None else jax.random.fold_in(key, number)
                grid = layer(flat, rate=self.rate, key=draw).reshape(*grid.shape[:3], -1)
            grid = soft_split(grid, split)
        return self.project(grid.reshape(grid.shape[0], -1, grid.shape[-1]))


class T2TViT(Backbone):
    """Tokens from soft splits."""

    def __init__(self, shape: T2TShape, *, rngs: nnx.Rngs):
        self.tokens_to_token = TokensToToken(shape, rngs=rngs)
        super().__init__(shape, rngs=rngs)

    def patches(self, images: Array, key: Array | None) -> Array:
        return self.tokens_to_token(images, key)


# Table 1 of the paper, and the released code for 7, 10, 12 and the variants.
_SIZES = {
    "7": {"embed_dim": 256, "depth": 7, "num_heads": 4, "mlp_ratio": 2.0},
    "10": {"embed_dim": 256, "depth": 10, "num_heads": 4, "mlp_ratio": 2.0},
    "12": {"embed_dim": 256, "depth": 12, "num_heads": 4, "mlp_ratio": 2.0},
    "14": {"embed_dim": 384, "depth": 14, "num_heads": 6, "mlp_ratio": 3.0},
    "19": {"embed_dim": 448, "depth": 19, "num_heads": 7, "mlp_ratio": 3.0},
    "24": {"embed_dim": 512, "depth": 24, "num_heads": 8, "mlp_ratio": 3.0},
    "14_resnext": {"embed_dim": 384, "depth": 14, "num_heads": 32, "mlp_ratio": 3.0},
    "14_wide": {"embed_dim": 768, "depth": 4, "num_heads": 12, "mlp_ratio": 3.0},
}
_TOP1 = {
    "t2t_vit_7": 71.7,
    "t2t_vit_10": 75.2,
    "t2t_vit_12": 76.5,
    "t2t_vit_14": 81.5,
    "t2t_vit_19": 81.9,
    "t2t_vit_24": 82.3,
    "t2t_vit_t_14": 81.7,
    "t2t_vit_t_19": 82.4,
    "t2t_vit_t_24": 82.6,
}
_CODE = "https://github.com/yitu-opensource/T2T-ViT"
FAMILIES = (
    Family(
        heading="T2T-ViT: dense ([arXiv 2101.11986](https://arxiv.org/abs/2101.11986))",
        members={f"t2t_vit_{size}": T2TShape(**sizes) for size, sizes in _SIZES.items()}
        | {
            f"t2t_vit_t_{size}": T2TShape(**_SIZES[size], tokens="transformer")
            for size in ("14", "19", "24")
        },
        published={
            name: Published(weights=_CODE, top1=top1, source=("T2T-ViT", _CODE), crop_ratio=0.9)
            for name, top1 in _TOP1.items()
        },
    ),
)
