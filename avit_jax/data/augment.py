"""From a decoded image to the model's size: augmentation in training, a fixed crop otherwise.

`inception` is the random resized crop with a flip (Szegedy et al. 2015, "Going deeper with
convolutions"), `affine` turns, zooms and shifts the whole image (digits must keep all their ink and
their handedness), `none` is the evaluation transform. RandAugment or colour jitter follow the flip.
Randomness comes from the generator that is passed in and from nothing else.
"""

import dataclasses
import math

import numpy as np
from PIL import Image

from avit_jax import validators
from avit_jax.data import opencv, scaled_jpeg
from avit_jax.data.color_jitter import color_jitter
from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample
from avit_jax.data.randaugment import INTERPOLATIONS, parse
from avit_jax.errors import UserError

KINDS = ("inception", "affine", "none")
DECODERS = ("pillow", "opencv")
CROP_TRIES = 10
# Pixels of a resized image that memory is spent on; of a longer and thinner one only the crop is.
LARGEST_RESIZED = 2**25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
    """Settings of the image transforms; each says which kind reads it."""

    kind: str = "inception"
    """"inception" (random resized crop and flip), "affine" or "none", in training."""
    min_scale: float = 0.08
    """Smallest share of the image's area that a crop covers (inception)."""
    max_scale: float = 1.0
    """Largest share of the image's area that a crop covers (inception)."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop (inception)."""
    flip: bool = True
    """Whether half of the images are mirrored left to right (inception)."""
    randaugment: str | None = None
    """RandAugment in timm's notation; DeiT's is "rand-m9-mstd0.5-inc1" (inception)."""
    interpolation: str = "bicubic"
    """Where RandAugment moves pixels: "bicubic" (DeiT), or "random", which takes bilinear, too."""
    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast, saturation (inception)."""
    rotation: float = 0.0
    """Largest turn either way, in radians (affine)."""
    zoom: float = 0.0
    """Largest relative change of the scale: 0.12 is 88 % to 112 % (affine)."""
    shift: float = 0.0
    """Largest shift along each axis, in pixels of the delivered image (affine)."""
    decoder: str = "pillow"
    """Decoder and resize in training (inception): "pillow", or "opencv" (faster)."""
    fast_shrink: bool = False
    """Shrink crops faster and less exactly (inception): JPEGs are decoded at 1/2, 1/4 or 1/8 where
    the crop stays as large as delivered, and OpenCV shrinks by less than 2 without averaging."""
    crop_ratio: float = 224 / 256
    """Evaluation: side of the central crop as a share of the resized shorter side."""

    def __post_init__(self) -> None:
        """Raises UserError, naming the setting, where a value makes no sense."""
        object.__setattr__(self, "ratio", tuple(self.ratio))
        prefix = "config.data.augment."
        validators.one_of(KINDS, self, "kind", prefix=prefix)
        validators.one_of(DECODERS, self, "decoder", prefix=prefix)
        validators.positive(self, "min_scale", "crop_ratio", prefix=prefix)
        validators.share(self, "min_scale", "max_scale", "crop_ratio", prefix=prefix)
        validators.one_of(tuple(INTERPOLATIONS), self, "interpolation", prefix=prefix)
        validators.not_negative(self, "rotation", "shift", "color_jitter", prefix=prefix)
        validators.between(0, 7, self, "rotation", prefix=prefix)  # a whole turn is less
        validators.between(0, 65536, self, "shift", prefix=prefix)  # the largest image's width
        validators.share_below_one(self, "zoom", prefix=prefix)
        if self.min_scale > self.max_scale:
            raise UserError(
                f"config.data.augment.min_scale is {self.min_scale!r} and max_scale "
                f"{self.max_scale!r}: write the smaller first."
            )
        if not (len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1]):
            raise UserError(
                f"config.data.augment.ratio is {self.ratio!r}: write two positive numbers, the "
                "smaller first."
            )
        self._check_colours()
        if self.decoder == "opencv" and self.kind != "inception":
            raise UserError(
                f"config.data.augment.decoder 'opencv' needs kind 'inception', not {self.kind!r}: "
                "write decoder 'pillow'."
            )
        if self.fast_shrink and self.kind != "inception":
            raise UserError(
                "config.data.augment.fast_shrink needs kind 'inception', whose crops are "
                f"shrunk, not {self.kind!r}: write False."
            )

    def _check_colours(self) -> None:
        if self.randaugment is not None:
            parse(self.randaugment)
        given = [name for name in ("randaugment", "color_jitter") if getattr(self, name)]
        if len(given) == 2:
            raise UserError(
                f"config.data.augment.color_jitter is {self.color_jitter!r}, but RandAugment "
                f"({self.randaugment!r}) changes colours already: write color_jitter 0, as DeiT's "
                "training has it, or randaugment None."
            )
        if given and self.kind != "inception":
            raise UserError(
                f"config.data.augment.{given[0]} is {getattr(self, given[0])!r}, which needs kind "
                f"'inception', not {self.kind!r}: leave it out."
            )


def train_image(
    image: bytes | np.ndarray, rng: np.random.Generator, *, size: int, augment: Augment
) -> np.ndarray:
    """Returns a decoded and augmented training image, uint8 [size, size, 3].

    Raises:
        BadExample: the image cannot be decoded; `rng` is then untouched.
    """
    if augment.kind == "none":
        return eval_image(image, size=size, augment=augment)
    if augment.kind == "affine":
        return np.asarray(affine(decode(image), rng, size=size, augment=augment))
    cropped = _random_crop(image, rng, size=size, augment=augment)
    if augment.randaugment is not None:
        policy, interpolation = parse(augment.randaugment), augment.interpolation
        cropped = policy.apply(Image.fromarray(cropped), rng, interpolation=interpolation)
    elif augment.color_jitter:
        cropped = color_jitter(Image.fromarray(cropped), rng, amount=augment.color_jitter)
    return np.asarray(cropped)


def _random_crop(
    image: bytes | np.ndarray, rng: np.random.Generator, *, size: int, augment: Augment
) -> np.ndarray:
    """A random part of the image at the delivered size, mirrored or not."""
    decoded, box = _decoded_with_box(image, rng, size=size, augment=augment)
    # Libraries mirror images many times faster than NumPy copies with a negative stride.
    if isinstance(decoded, np.ndarray):
        mirrored = augment.flip and rng.random() < 0.5
        return opencv.resized_crop(decoded, box, size, mirrored=mirrored, fast=augment.fast_shrink)
    resized = decoded.resize((size, size), Image.Resampling.BICUBIC, box=box)
    if augment.flip and rng.random() < 0.5:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(resized)


def _decoded_with_box(
    image: bytes | np.ndarray, rng: np.random.Generator, *, size: int, augment: Augment
) -> tuple[Image.Image | np.ndarray, tuple[float, float, float, float]]:
    """The image, or pixels of OpenCV, and a random crop of it, in its pixels."""
    decoder = opencv.decode if augment.decoder == "opencv" else decode
    if augment.fast_shrink and isinstance(image, bytes):
        full = scaled_jpeg.upright_size(image)
        if full is not None:
            before = rng.bit_generator.state
            box = random_box(*full, rng, augment=augment)
            shrink = scaled_jpeg.shrink_of(box, size)
            try:
                decoded = decoder(image, shrink=shrink)
            except BadExample:
                rng.bit_generator.state = before
                raise
            return decoded, scaled_jpeg.scaled_box(box, full, _size(decoded))
    decoded = decoder(image)
    return decoded, random_box(*_size(decoded), rng, augment=augment)


def _size(decoded: Image.Image | np.ndarray) -> tuple[int, int]:
    is_array = isinstance(decoded, np.ndarray)
    return (decoded.shape[1], decoded.shape[0]) if is_array else decoded.size


def eval_image(image: bytes | np.ndarray, *, size: int, augment: Augment) -> np.ndarray:
    """Returns the central crop of the resized image, uint8 [size, size, 3].

    The shorter side becomes round(size / crop_ratio) pixels by antialiased bicubic, as DeiT
    evaluates; the longer side and the crop's corner are rounded as torchvision does.

    Raises:
        BadExample: the image cannot be decoded.
    """
    decoded = decode(image)
    shorter = round(size / augment.crop_ratio)
    scale = shorter / min(decoded.size)
    width, height = (max(shorter, int(side * scale)) for side in decoded.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if width * height > LARGEST_RESIZED:
        shares = decoded.width / width, decoded.height / height
        corners = (left, top, left + size, top + size)
        box = [place * share for place, share in zip(corners, shares * 2, strict=True)]
        return np.asarray(decoded.resize((size, size), Image.Resampling.BICUBIC, box=box))
    resized = decoded.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def random_box(
    width: int, height: int, rng: np.random.Generator, *, augment: Augment
) -> tuple[int, int, int, int]:
    """Returns a crop (left, top, right, bottom) in pixels, with area and aspect drawn at random.

    The share of the area is uniform, the aspect log-uniform; after ten draws that do not fit, the
    largest central crop with an allowed aspect is taken.
    """
    low, high = (math.log(value) for value in augment.ratio)
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(augment.min_scale, augment.max_scale)
        aspect = math.exp(rng.uniform(low, high))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(rng.integers(width - crop_width + 1))
            top = int(rng.integers(height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width = min(width, max(1, round(height * augment.ratio[1])))
    crop_height = min(height, max(1, round(width / augment.ratio[0])))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def affine(
    image: Image.Image, rng: np.random.Generator, *, size: int, augment: Augment
) -> Image.Image:
    """Returns the image resized to [size, size], then turned, zoomed and shifted about its centre.

    Pixels from outside of the image are black, as the digits' background is.
    """
    angle = rng.uniform(-augment.rotation, augment.rotation)
    scale = 1 + rng.uniform(-augment.zoom, augment.zoom)
    shift_x, shift_y = rng.uniform(-augment.shift, augment.shift, size=2)
    # Pillow wants the inverse map, from places in the result to places in the image.
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    centre = size / 2
    x, y = centre + shift_x, centre + shift_y
    inverse = (
        cosine, sine, centre - cosine * x - sine * y,
        -sine, cosine, centre + sine * x - cosine * y,
    )  # fmt: skip
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return resized.transform(
        (size, size), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC
    )
