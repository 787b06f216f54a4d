"""Random erasing (arXiv 1708.04896) on the device, of images that are normalised already.

The rectangles are those of timm's `RandomErasing`, one an image at most: its area and the logarithm
of its aspect are uniform, up to ten draws are made until one is smaller than the image, and its
place is uniform. All ten are drawn at once and the first that fits is taken: the device follows no
loop whose length depends on what was drawn.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax import validators
from avit_jax.errors import UserError

MODES = ("pixel", "rand", "const")
TRIES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Erase:
    """How often a rectangle of an image is erased, and how large it is.

    Attributes:
        probability: share of the images; DeiT's is 0.25.
        mode: what it is filled with: "pixel" (normal noise), "rand" (one colour of such) or "const"
            (the mean, 0).
        min_area: of it, as a share of the image's.
        max_area: of it, as a share of the image's.
        min_aspect: of its height / width.
        max_aspect: of its height / width.
    """

    probability: float = 0.0
    mode: str = "pixel"
    min_area: float = 0.02
    max_area: float = 1 / 3
    min_aspect: float = 0.3
    max_aspect: float = 1 / 0.3

    def __post_init__(self):
        prefix = "config.data.erase."
        validators.one_of(MODES, self, "mode", prefix=prefix)
        validators.share(self, "probability", "min_area", "max_area", prefix=prefix)
        validators.positive(self, "min_aspect", "max_aspect", prefix=prefix)
        for low, high in (("min_area", "max_area"), ("min_aspect", "max_aspect")):
            if getattr(self, low) > getattr(self, high):
                raise UserError(
                    f"{prefix}{low} is {getattr(self, low)!r} and {high} {getattr(self, high)!r}: "
                    "write the smaller first."
                )


def erase(images: Array, settings: Erase, key: Array) -> Array:
    """Normalised images `[B, H, W, C]` with a rectangle erased in some; each has a key of its own.

    `normalise` has come before it, mixing comes behind it, as in timm.
    """
    if not settings.probability:
        return images

    def one(image: Array, key: Array) -> Array:
        box_key, fill_key = jax.random.split(key)
        inside = rectangle(*image.shape[:2], settings, box_key)[..., None]
        shapes = {"pixel": image.shape, "rand": (1, 1, image.shape[-1])}
        filling = jnp.zeros((), image.dtype)
        if settings.mode in shapes:
            filling = jax.random.normal(fill_key, shapes[settings.mode], image.dtype)
        return jnp.where(inside, filling, image)

    return jax.vmap(one)(images, jax.random.split(key, images.shape[0]))


def rectangle(height: int, width: int, settings: Erase, key: Array) -> Array:
    """Mask `[H, W]` of what is erased in one image, often nothing.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        settings: as in `config.data.erase`.
        key: of this image.
    """
    erased_key, area_key, aspect_key, top_key, left_key = jax.random.split(key, 5)
    limits = {"minval": settings.min_area, "maxval": settings.max_area}
    areas = jax.random.uniform(area_key, (TRIES,), **limits) * (height * width)
    low, high = math.log(settings.min_aspect), math.log(settings.max_aspect)
    aspects = jnp.exp(jax.random.uniform(aspect_key, (TRIES,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(areas * aspects)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / aspects)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    tall, wide = heights[first], widths[first]
    # Where none fits, the limits of a place may be empty: nothing is erased then anyway.
    top = jax.random.randint(top_key, (), 0, jnp.maximum(height - tall, 0) + 1)
    left = jax.random.randint(left_key, (), 0, jnp.maximum(width - wide, 0) + 1)
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside_rows = (rows >= top) & (rows < top + tall)
    inside_columns = (columns >= left) & (columns < left + wide)
    erased = jax.random.bernoulli(erased_key, settings.probability) & fits.any()
    return erased & inside_rows[:, None] & inside_columns[None, :]
