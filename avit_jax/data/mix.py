"""Normalisation, mixup and cutmix on the device, where they cost next to nothing.

Mixup (arXiv 1710.09412) blends each image with its partner, cutmix (arXiv 1905.04899) pastes a box
of it. Both are one weighted mean here: the weight map is constant for the one, a box for the other.
The partner of row i is row B-1-i, and every image draws its own weights.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax import validators

# Channel means and standard deviations of ImageNet, of pixels in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix:
    """How often and how strongly images are mixed.

    Attributes:
        mixup: alpha of mixup's Beta(alpha, alpha); 0 switches it off.
        cutmix: alpha of cutmix's Beta(alpha, alpha); 0 switches it off.
        probability: share of the images that are mixed at all.
        cutmix_share: share of the mixed images that take cutmix, where both are on.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    cutmix_share: float = 0.5

    def __post_init__(self):
        prefix = "config.data.mix."
        validators.not_negative(self, "mixup", "cutmix", prefix=prefix)
        validators.share(self, "probability", "cutmix_share", prefix=prefix)


def normalise(images: Array, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Array:
    """uint8 `[B, H, W, 3]` to float32 with mean 0 and standard deviation 1 (over ImageNet)."""
    # float32 also under JAX_ENABLE_X64.
    means, stds = (jnp.asarray(values, jnp.float32) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - means) / stds


def mix(images: Array, targets: Array, settings: Mix, key: Array) -> tuple[Array, Array]:
    """Mix images `[B, H, W, 3]` and their target distributions `[B, C]` with their partners'.

    The share of an image in its mixed target is its mean weight over the pixels.
    """
    if not settings.mixup and not settings.cutmix:
        return images, targets
    weights = _weights(images.shape, settings, key)
    images = images * weights + images[::-1] * (1.0 - weights)
    share = weights.mean((1, 2, 3))[:, None]
    return images, targets * share + targets[::-1] * (1.0 - share)


def _weights(shape: tuple[int, ...], settings: Mix, key: Array) -> Array:
    """Weight of the own image at each pixel, `[B, H, W, 1]`."""
    batch, height, width, _ = shape
    mixed_key, kind_key, blend_key, box_key, place_key = jax.random.split(key, 5)
    cutmix_share = settings.cutmix_share
    if not settings.mixup or not settings.cutmix:
        cutmix_share = float(settings.cutmix > 0)
    takes_box = jax.random.bernoulli(kind_key, cutmix_share, (batch,))[:, None, None, None]
    is_mixed = jax.random.bernoulli(mixed_key, settings.probability, (batch,))
    weights = jnp.ones((batch, height, width, 1))
    if settings.mixup:
        blend = jax.random.beta(blend_key, settings.mixup, settings.mixup, (batch, 1, 1, 1))
        weights = jnp.where(takes_box, weights, blend)
    if settings.cutmix:
        area = 1.0 - jax.random.beta(box_key, settings.cutmix, settings.cutmix, (batch,))
        box = _box(height, width, area, jax.random.uniform(place_key, (2, batch)))
        weights = jnp.where(takes_box, 1.0 - box, weights)
    return jnp.where(is_mixed[:, None, None, None], weights, 1.0)


def _box(height: int, width: int, area: Array, place: Array) -> Array:
    """Masks `[B, H, W, 1]`: 1 inside a box of the image's proportions, 0 outside.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        area: of each box as a share of the image's, `[B]`, before it is clipped at the borders.
        place: centres as shares of height and width, `[2, B]`.
    """

    def inside(size: int, centre: Array) -> Array:
        half = jnp.sqrt(area) * size / 2
        distance = jnp.abs(jnp.arange(size) + 0.5 - (centre * size)[:, None])
        return distance < half[:, None]

    rows, columns = inside(height, place[0]), inside(width, place[1])
    return (rows[:, :, None] & columns[:, None, :])[..., None].astype(jnp.float32)
