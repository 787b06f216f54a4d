"""Images as a model takes them: decoded, resized, cropped and normalised as in evaluation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from avit_jax import zoo
from avit_jax.data.augment import Augment
from avit_jax.data.inference_batches import load_ahead
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.prediction.inputs import GivenImages, ImageLike
from avit_jax.pretrained.pixels import PIXELS


def preprocess(
    images: ImageLike | Iterable[ImageLike],
    model: str | Model,
    *,
    pixels: str | None = None,
    crop_ratio: float | None = None,
) -> np.ndarray:
    """Images as the published weights of a model expect them, for `model.apply`.

    Args:
        images: one image or several, see `LoadedRun.predict`.
        model: a name, which decides size, crop and normalisation as its weights were published; or
            a model, which decides the size alone, for many weights may be in it.
        pixels: "imagenet" (its mean and standard deviation) or "symmetric" (-1..1), instead of what
            the name says; of a model, and where nothing was published, "imagenet".
        crop_ratio: side of the central crop as a share of the resized shorter side, likewise;
            224 / 256 where nothing else is known.

    Returns:
        float32 `[S, S, 3]` of one image, `[B, S, S, 3]` of several.

    Raises:
        UserError: an image that cannot be used, or an unknown model or name of pixels.
    """
    if not isinstance(model, str | Model):
        raise UserError(
            f"model is a {type(model).__name__}: pass a name of list_models() or a model; what "
            "load_run returned has run.preprocess(images)."
        )
    known_pixels, known_crop = published_preprocessing(model)
    pixels = known_pixels if pixels is None else pixels
    crop_ratio = known_crop if crop_ratio is None else crop_ratio
    if pixels not in PIXELS:
        raise UserError(f"pixels is {pixels!r}: write one of {', '.join(PIXELS)}.")
    shape = (zoo.named(model) if isinstance(model, str) else model).stages[0]
    cut = prepare(images, size=shape.image_size, augment=Augment(crop_ratio=crop_ratio))
    return np.asarray(normalise(cut, *PIXELS[pixels]))


def prepare(images: ImageLike | Iterable[ImageLike], *, size: int, augment: Augment) -> np.ndarray:
    """Images as evaluation cuts them, uint8, one or several as in `preprocess`.

    Raises:
        UserError: an image that cannot be used.
    """
    source = GivenImages(images, class_names=("unknown",))
    cut = prepare_all(source, size=size, augment=augment)
    return cut[0] if source.is_single else cut


def prepare_all(source: GivenImages, *, size: int, augment: Augment) -> np.ndarray:
    """The images of a source in one array, uint8 `[B, S, S, 3]`.

    Raises:
        UserError: an image that cannot be used.
    """
    batches = load_ahead(
        source, range(len(source)), batch_size=max(1, len(source)), image_size=size, augment=augment
    )
    for loaded in batches:
        for index, reason in enumerate(loaded.reasons):
            if reason is not None:
                raise UserError(f"{source.describe(index)} {reason}: leave it out.")
        return loaded.images
    return np.zeros((0, size, size, 3), np.uint8)


def published_preprocessing(model: str | Model) -> tuple[str, float]:
    """Pixels and crop of the weights that were published under a name, or what most expect."""
    for family in zoo.families():
        if model in family.published:
            return family.published[model].pixels, family.published[model].crop_ratio
    return "imagenet", Augment().crop_ratio
