"""The plain and the distilled vision transformer (DeiT, arXiv 2012.12877) as a backbone."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.models.backbone import Backbone, Shape
from avit_jax.models.layers import linear
from avit_jax.models.positions import LearnedPositions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTShape(Shape):
    """A vision transformer on square patches; see `Shape` for the rest.

    Attributes:
        patch_size: height and width of a patch; divides `image_size`.
    """

    patch_size: int = 16

    @property
    def position_encoding(self) -> LearnedPositions:
        """See `Shape.position_encoding`."""
        return LearnedPositions()

    def build(self, rngs: nnx.Rngs) -> ViT:
        """See `Shape.build`."""
        return ViT(self, rngs=rngs)

    @property
    def embedding_macs(self) -> int:
        """See `Shape.embedding_macs`."""
        return self.grid**2 * 3 * self.patch_size**2 * self.embed_dim


class ViT(Backbone):
    """Patches embedded by one linear layer, with learnt positions."""

    def __init__(self, shape: ViTShape, *, rngs: nnx.Rngs):
        dim, dtype = shape.embed_dim, jnp.dtype(shape.dtype)
        # A patch embedding is a convolution whose stride is its kernel, so it is one matrix
        # product.
        self.patch_embed = linear(3 * shape.patch_size**2, dim, dtype=dtype, rngs=rngs)
        super().__init__(shape, rngs=rngs)

    def patches(self, images: Array, key: Array | None) -> Array:
        """See `Backbone.patches`; nothing here is random, so the key is not used."""
        return self.patch_embed(_patchify(images, self.shape.patch_size))


def _patchify(images: Array, patch_size: int) -> Array:
    """`[B, H, W, 3]` to `[B, patches, patch_size * patch_size * 3]`, row by row."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    x = images.reshape(batch, rows, patch_size, columns, patch_size, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * columns, patch_size * patch_size * channels)
