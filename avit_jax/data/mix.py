"""Normalisation, mixup and cutmix on the device, where they cost next to nothing.

Mixup (arXiv 1710.09412) blends each image with its partner, cutmix (arXiv 1905.04899) pastes a box
of it. Both are one weighted mean here: the weight map is constant for the one, a box for the other.

Every image draws its own weights, and the partner of row i is row B-1-i. Or, as in timm's `Mixup`
of mode "batch", which DeiT uses, the images of a group draw one kind, one lambda and one box
together, and partners are mirror images in the group; one group was what one GPU had there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax import validators
from avit_jax.data import symmetric_beta
from avit_jax.errors import UserError

KINDS = ("image", "batch")

# Channel means and standard deviations of ImageNet, of pixels in 0..1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mix:
    """How often and how strongly images are mixed.

    Attributes:
        mixup: alpha of mixup's Beta(alpha, alpha); 0 switches it off.
        cutmix: alpha of cutmix's Beta(alpha, alpha); 0 switches it off.
        probability: share of the images (or groups) that are mixed at all.
        cutmix_share: share of the mixed images that take cutmix, where both are on.
        per: "image": each draws its own weights; "batch": all draw one together, as timm.
        group: per batch: images that draw together, neighbours in the batch; 0: all of a step.
            DeiT's is 256, which one GPU had.
        end_epoch: nothing is mixed from this epoch on; 0: to the end.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    cutmix_share: float = 0.5
    per: str = "image"
    group: int = 0
    end_epoch: float = 0.0

    def __post_init__(self):
        prefix = "config.data.mix."
        validators.one_of(KINDS, self, "per", prefix=prefix)
        validators.not_negative(self, "group", "end_epoch", prefix=prefix)
        validators.not_negative(self, "mixup", "cutmix", prefix=prefix)
        validators.share(self, "probability", "cutmix_share", prefix=prefix)
        if self.group and self.per == "image":
            raise UserError(
                f"config.data.mix.group is {self.group!r}, but per 'image' every image draws for "
                "itself: write per 'batch', or group 0."
            )

    def refuse_uneven(self, images: int) -> None:
        """Raises UserError where the images of a step do not make whole groups."""
        if self.group and images % self.group:
            raise UserError(
                f"config.data.mix.group is {self.group!r}, of which {images} images a step "
                "(config.train.batch_size) are no multiple: change one of them."
            )


def normalise(images: Array, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Array:
    """uint8 `[B, H, W, 3]` to float32 with mean 0 and standard deviation 1 (over ImageNet)."""
    # float32 also under JAX_ENABLE_X64.
    means, stds = (jnp.asarray(values, jnp.float32) for values in (mean, std))
    return (images.astype(jnp.float32) / 255.0 - means) / stds


def mix(
    images: Array, targets: Array, settings: Mix, key: Array, *, on: Array | bool = True
) -> tuple[Array, Array]:
    """Mix images `[B, H, W, 3]` and their target distributions `[B, C]` with their partners'.

    The share of an image in its mixed target is its mean weight over the pixels. Where the scalar
    `on` is false, nothing is mixed: before the settings' `end_epoch` it is true.
    """
    if not settings.mixup and not settings.cutmix:
        return images, targets
    batch, height, width, _ = images.shape
    group = settings.group or batch
    if settings.per == "image":
        weights = _weights(batch, (height, width), settings, key, box=_box)
    else:
        weights = _weights(batch // group, (height, width), settings, key, box=_box_of_timm)
        weights = jnp.repeat(weights, group, axis=0)
    if on is not True:
        weights = jnp.where(on, weights, 1.0)

    def partners(rows: Array) -> Array:
        if group == batch:
            return rows[::-1]
        return rows.reshape(-1, group, *rows.shape[1:])[:, ::-1].reshape(rows.shape)

    images = images * weights + partners(images) * (1.0 - weights)
    share = weights.mean((1, 2, 3))[:, None]
    return images, targets * share + partners(targets) * (1.0 - share)


def _weights(
    draws: int, size: tuple[int, int], settings: Mix, key: Array, *, box: Callable
) -> Array:
    """Weight of the own image at each pixel, `[draws, H, W, 1]`."""
    height, width = size
    mixed_key, kind_key, blend_key, box_key, place_key = jax.random.split(key, 5)
    cutmix_share = settings.cutmix_share
    if not settings.mixup or not settings.cutmix:
        cutmix_share = float(settings.cutmix > 0)
    takes_box = jax.random.bernoulli(kind_key, cutmix_share, (draws,))[:, None, None, None]
    is_mixed = jax.random.bernoulli(mixed_key, settings.probability, (draws,))
    weights = jnp.ones((draws, height, width, 1))
    if settings.mixup:
        blend = symmetric_beta.draw(blend_key, settings.mixup, (draws, 1, 1, 1))
        weights = jnp.where(takes_box, weights, blend)
    if settings.cutmix:
        area = 1.0 - symmetric_beta.draw(box_key, settings.cutmix, (draws,))
        pasted = box(height, width, area, jax.random.uniform(place_key, (2, draws)))
        weights = jnp.where(takes_box, 1.0 - pasted, weights)
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

    return _both(inside(height, place[0]), inside(width, place[1]))


def _box_of_timm(height: int, width: int, area: Array, place: Array) -> Array:
    """The same by the rule of timm's `rand_bbox`: whole pixels, an even number along each axis."""

    def inside(size: int, share: Array) -> Array:
        centre = (share * size).astype(jnp.int32)[:, None]
        half = (jnp.sqrt(area) * size).astype(jnp.int32)[:, None] // 2
        pixel = jnp.arange(size)
        return (pixel >= centre - half) & (pixel < centre + half)

    return _both(inside(height, place[0]), inside(width, place[1]))


def _both(rows: Array, columns: Array) -> Array:
    return (rows[:, :, None] & columns[:, None, :])[..., None].astype(jnp.float32)
