"""Images as somebody hands them to a model from Python: one check, whatever they go into.

A model takes normalised floating-point images. Pixels taken as such would give an answer, and a
wrong one, so bytes are normalised as exported programs do, and other numbers are refused.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from PIL import Image

from avit_jax.data.mix import normalise
from avit_jax.errors import UserError


def given_images(images: Any, size: int) -> Array | np.ndarray:
    """A batch as a model takes it, floating-point `[B, S, S, 3]`.

    Args:
        images: `[B, S, S, 3]`, normalised floating-point numbers or uint8 pixels 0..255, which are
            normalised here: an array of any library, a traced one, or a list of arrays of one image
            each.
        size: side S of the model's images, in pixels.

    Raises:
        UserError: images of another type or shape; the message says how to make them.
    """
    array = checked_images(images, size)
    return normalise(jnp.asarray(array)) if array.dtype == np.uint8 else array


def checked_images(images: Any, size: int) -> Array | np.ndarray:
    """The same as they were given, `[B, S, S, 3]`: normalised, or pixels as uint8."""
    array = images if isinstance(images, jax.Array) else _as_numpy(images)
    if array.shape == (size, size, 3):
        raise UserError(
            f"images have shape {tuple(array.shape)}, that of one image, but this model takes a "
            f"batch [B, {size}, {size}, 3]: write images[None]."
        )
    if array.ndim != 4 or array.shape[1:] != (size, size, 3):
        raise UserError(
            f"images have shape {tuple(array.shape)}, but this model takes [B, {size}, {size}, 3]: "
            "resize them or create the model with another image_size."
        )
    if array.dtype != np.uint8 and not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(
            f"images are {array.dtype}, but this model takes floating-point numbers that are "
            "normalised, or pixels 0..255 as uint8, which it normalises itself: write "
            "images.astype(np.uint8) for pixels."
        )
    return array


def _as_numpy(images: Any) -> np.ndarray:
    several = list(images) if isinstance(images, list | tuple) else [images]
    if any(isinstance(image, Image.Image) for image in several):
        raise UserError(
            "images are of Pillow, but this model takes arrays [B, S, S, 3]: resize each to the "
            'model\'s size and write np.stack([np.asarray(image.convert("RGB")) for image in '
            "images])."
        )
    if isinstance(images, list | tuple):
        arrays = [_as_numpy(image) for image in several]
        kinds = sorted({f"{array.dtype} {list(array.shape)}" for array in arrays})
        if len(kinds) > 1:
            raise UserError(
                f"images of a list are {kinds[0]} and {kinds[1]}, but a batch is of one type and "
                "shape: make them alike."
            )
        return np.stack(arrays) if arrays else np.empty(0)
    # Of PyTorch: a tensor that requires a gradient is no array otherwise.
    array = np.asarray(images.detach() if hasattr(images, "detach") else images)
    if array.dtype.kind in "OSU":
        raise UserError(
            f"images are of type {type(images).__name__}, but this model takes arrays "
            "[B, S, S, 3] of numbers, or a list of arrays of one image each."
        )
    return array
