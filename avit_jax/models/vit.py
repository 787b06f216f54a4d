"""The plain and the distilled vision transformer (DeiT, arXiv 2012.12877) as a backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.models.backbone import Backbone
from avit_jax.models.family import Family, Published
from avit_jax.models.layers import linear
from avit_jax.models.patch_grid import check_tiled
from avit_jax.models.shape import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTShape(Shape):
    """A vision transformer on square patches; see `Shape` for the rest.

    Attributes:
        patch_size: height and width of a patch; divides `image_size`.
        given_grid: patches along each side where they do not tile the image, which zeros around it
            then fill up; no setting of a config.
    """

    patch_size: int = 16
    given_grid: int | None = dataclasses.field(default=None, metadata={"config": False})

    def __post_init__(self):
        super().__post_init__()
        if self.given_grid is None:
            check_tiled(self)

    @property
    def grid(self) -> int:
        return self.given_grid or super().grid

    def with_grid(self, grid: int) -> ViTShape:
        """See `Shape.with_grid`; patches are the smallest that cover the image (DVT's)."""
        size = -(-self.image_size // grid)
        return dataclasses.replace(self, patch_size=size, given_grid=grid)

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros in front of and behind the image on both axes."""
        missing = self.grid * self.patch_size - self.image_size
        return missing // 2, missing - missing // 2

    def build(self, rngs: nnx.Rngs) -> ViT:
        return ViT(self, rngs=rngs)

    @property
    def embedding_macs(self) -> int:
        return self.grid**2 * 3 * self.patch_size**2 * self.embed_dim

    @property
    def upstream_names(self) -> dict[str, str]:
        return {"patch_embed": "patch_embed.proj"}

    @property
    def patch_embedding(self) -> str:
        return "patch_embed"

    @property
    def convolutions(self) -> dict[str, int]:
        return {self.patch_embedding: self.patch_size}

    def patches_as_onnx(self, graph: Any, params: Mapping[str, Any], pixels: str) -> str:
        side, grid = self.patch_size, self.grid
        patches = graph("Reshape", pixels, [0, grid, side, grid, side * 3])
        patches = graph("Transpose", patches, perm=[0, 1, 3, 2, 4])
        patches = graph("Reshape", patches, [0, grid * grid, side * side * 3])
        return graph.linear(patches, params["patch_embed"])


class ViT(Backbone):
    """Patches embedded by one linear layer."""

    def __init__(self, shape: ViTShape, *, rngs: nnx.Rngs):
        dim, dtype = shape.embed_dim, jnp.dtype(shape.dtype)
        # A patch embedding is a convolution whose stride is its kernel, so it is one matrix
        # product.
        self.patch_embed = linear(
            3 * shape.patch_size**2, dim, dtype=dtype, result=jnp.float32, rngs=rngs
        )
        super().__init__(shape, rngs=rngs)

    def patches(self, images: Array, key: Array | None) -> Array:
        """See `Backbone.patches`; nothing here is random, so the key is not used."""
        around = self.shape.padding
        images = jnp.pad(images, ((0, 0), around, around, (0, 0)))
        return self.patch_embed(_patchify(images, self.shape.patch_size))


def _patchify(images: Array, patch_size: int) -> Array:
    """`[B, H, W, 3]` to `[B, patches, patch_size * patch_size * 3]`, row by row."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = images.reshape(batch, rows, patch_size, columns, patch_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * columns, patch_size * patch_size * channels)


def _named(
    prefix: str, sizes: tuple[str, ...], variants: tuple[bool, ...] = (False,)
) -> dict[str, ViTShape]:
    """Shapes as timm names them, plain or distilled, on all geometries of their sizes."""
    return {
        f"{prefix}_{size}{'_distilled' * distilled}_patch{patch_size}_{image_size}": ViTShape(
            **SIZES[size], patch_size=patch_size, image_size=image_size, distilled=distilled
        )
        for size in sizes
        for distilled in variants
        for patch_size, image_size in (((4, 32),) if size == "micro" else ((16, 224), (16, 384)))
    }


def _deit(name: str, top1: float) -> Published:
    source = ("DeiT", "https://github.com/facebookresearch/deit/blob/main/README_deit.md")
    return Published(weights=f"hf://timm/{name}.fb_in1k", top1=top1, source=source)


def _augreg(name: str, top1: float) -> Published:
    results = "huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
    return Published(
        weights=f"hf://timm/{name}.augreg_in21k_ft_in1k",
        top1=top1,
        source=("timm", f"https://github.com/{results}"),
        pixels="symmetric",
        crop_ratio=1.0 if name.endswith("384") else 0.9,
    )


# Tiny to base: DeiT's Table 1 (arXiv 2012.12877). Large: Table 1 of the ViT paper
# (arXiv 2010.11929). Micro is ours, for 32-pixel images such as the digits.
SIZES = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "micro": {"embed_dim": 48, "depth": 6, "num_heads": 4},
}
# As DeiT's README gives for the released files (arXiv 2012.12877's abstract has 83.1 for base at
# 384 px).
_DEIT_TOP1 = {
    "deit_tiny_patch16_224": 72.2,
    "deit_small_patch16_224": 79.9,
    "deit_base_patch16_224": 81.8,
    "deit_base_patch16_384": 82.9,
    "deit_tiny_distilled_patch16_224": 74.5,
    "deit_small_distilled_patch16_224": 81.2,
    "deit_base_distilled_patch16_224": 83.4,
    "deit_base_distilled_patch16_384": 85.2,
}
# AugReg's weights (arXiv 2106.10270), with the accuracy that timm measured for its copies.
_AUGREG_TOP1 = {
    "vit_tiny_patch16_224": 75.454,
    "vit_tiny_patch16_384": 78.424,
    "vit_small_patch16_224": 81.384,
    "vit_small_patch16_384": 83.802,
    "vit_base_patch16_224": 84.532,
    "vit_base_patch16_384": 85.996,
    "vit_large_patch16_224": 85.834,
    "vit_large_patch16_384": 87.084,
}
FAMILIES = (
    # The names of timm: a ViT is a DeiT without distillation, trained by somebody else.
    Family(
        heading="ViT: dense ([arXiv 2010.11929](https://arxiv.org/abs/2010.11929)), "
        "weights of AugReg ([arXiv 2106.10270](https://arxiv.org/abs/2106.10270))",
        members=_named("vit", ("tiny", "small", "base", "large")),
        published={name: _augreg(name, top1) for name, top1 in _AUGREG_TOP1.items()},
        only_dense=True,
    ),
    Family(
        heading="DeiT: dense ([arXiv 2012.12877](https://arxiv.org/abs/2012.12877))",
        members=_named("deit", ("tiny", "small", "base", "micro"), (False, True)),
        published={name: _deit(name, top1) for name, top1 in _DEIT_TOP1.items()},
    ),
)
