"""RandAugment (arXiv 1909.13719) in the notation and with the operations of timm, by Pillow.

    policy = parse("rand-m9-mstd0.5-inc1")   # DeiT's
    image = policy.apply(image, rng)

Behind `rand` stand, in any order: `m` the magnitude, 0..10; `mstd` the deviation of the noise on it
(above 100: uniform up to the magnitude); `n` how many operations are drawn for an image, with
replacement; `p` the probability of each to be carried out; `mmax` the largest magnitude; `inc1`
the set of operations in which all grow stronger with the magnitude. Ranges and operations are those
of timm, as DeiT used it; every pixel is what Pillow makes of it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from avit_jax.errors import UserError

# ImageNet's mean, as bytes: what turned and shifted images leave bare.
FILL = (124, 116, 104)
INTERPOLATIONS = {
    "bicubic": (Image.Resampling.BICUBIC,),
    "random": (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC),
}
EXAMPLE = "rand-m9-mstd0.5-inc1"
UNIFORM = 100.0  # noise above it means a uniform magnitude
TEN = 10.0  # the magnitude at which an operation reaches the end of its range

# Largest angle (degrees), shear, and shift (share of the side); the direction is random.
_EITHER_WAY = {
    "Rotate": 30.0,
    "ShearX": 0.3,
    "ShearY": 0.3,
    "TranslateXRel": 0.45,
    "TranslateYRel": 0.45,
}
_ENHANCEMENTS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}
# Of these there is one kind that grows stronger with the magnitude and one that does not.
_OF_TWO_KINDS = ("Posterize", "Solarize", *_ENHANCEMENTS)
_NAMES = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd",
    "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel",
    "TranslateYRel",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Which operations an image may meet, and how strong they are.

    Attributes:
        magnitude: mean strength, of 10.
        noise: standard deviation of the strength.
        layers: operations drawn for an image.
        probability: of each of them to be carried out.
        largest: strengths are clipped to 0..largest.
        increasing: whether all operations grow stronger with the magnitude.
    """

    magnitude: float = TEN
    noise: float = 0.0
    layers: int = 2
    probability: float = 0.5
    largest: float = TEN
    increasing: bool = False

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations, each as likely as the others."""
        ending = "Increasing" if self.increasing else ""
        return tuple(name + ending if name in _OF_TWO_KINDS else name for name in _NAMES)

    def strength(self, rng: np.random.Generator) -> float:
        """A magnitude with its noise, clipped to its range."""
        drawn = self.magnitude
        if self.noise > UNIFORM:
            drawn = rng.uniform(0.0, self.magnitude)
        elif self.noise:
            drawn = rng.normal(self.magnitude, self.noise)
        return max(0.0, min(drawn, self.largest))

    def apply(
        self, image: Image.Image, rng: np.random.Generator, *, interpolation: str = "bicubic"
    ) -> Image.Image:
        """The image, of mode RGB, after the operations that were drawn for it.

        `interpolation` is one of `INTERPOLATIONS`, for what turns, shears and shifts.
        """
        names, resamples = self.operations, INTERPOLATIONS[interpolation]
        for number in rng.integers(len(names), size=self.layers):
            if rng.random() >= self.probability:
                continue
            name = names[number]
            value = argument(name, self.strength(rng), negated=rng.random() < 0.5)
            resample = resamples[rng.integers(len(resamples))]
            image = operate(image, name, value, resample=resample)
        return image


@functools.lru_cache
def parse(text: str) -> RandAugment:
    """The policy that timm's notation means; `inc0` stands for its own absence.

    Raises:
        UserError: it is not in that notation, or a number makes no sense.
    """
    head, *parts = text.split("-")
    found: dict[str, Any] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?|inf)", part)
        name, kind = _SECTIONS.get(match[1], (None, float)) if match else (None, float)
        if match is None or name is None or (kind is int and not match[2].isdigit()):
            raise _refusal(text, f"{part!r} is none of {', '.join(_SECTIONS)} with a number")
        found[name] = kind(match[2])
    if "increasing" in found and found["increasing"] not in (0, 1):
        raise _refusal(text, "inc is neither 0 nor 1")
    policy = RandAugment(**found | {"increasing": bool(found.get("increasing"))})
    if head != "rand":
        raise _refusal(text, "it does not begin with rand")
    if policy.magnitude > policy.largest:
        raise _refusal(text, f"m is above {policy.largest:g}, the largest magnitude (mmax)")
    if policy.probability > 1 or policy.layers < 1 or not policy.largest:
        raise _refusal(text, "p is above 1, or n or mmax is 0")
    return policy


_SECTIONS: dict[str, tuple[str, type]] = {
    "m": ("magnitude", float),
    "mstd": ("noise", float),
    "n": ("layers", int),
    "p": ("probability", float),
    "mmax": ("largest", float),
    "inc": ("increasing", int),
}


def argument(name: str, strength: float, *, negated: bool) -> float | int | None:
    """What an operation takes at a strength of 0..10, `None` where it takes nothing.

    An angle in degrees, a shear, a shift as a share of the side, bits to keep, a threshold or an
    addend of 0..255, or the factor of an enhancement (1 changes nothing).

    Args:
        name: one of `RandAugment.operations`.
        strength: of 10.
        negated: whether it goes the other way, for operations that have two directions.
    """
    share = strength / TEN
    if name in _EITHER_WAY:
        amount = share * _EITHER_WAY[name]
        return -amount if negated else amount
    kind, increasing = name.removesuffix("Increasing"), name.endswith("Increasing")
    if kind in _ENHANCEMENTS:
        if not increasing:
            return share * 1.8 + 0.1
        return max(0.1, 1.0 - share * 0.9 if negated else 1.0 + share * 0.9)
    ranges = {"Posterize": 4, "Solarize": 256, "SolarizeAdd": 110}
    if kind not in ranges:
        return None
    amount = int(share * ranges[kind])
    return ranges[kind] - amount if increasing else amount


def operate(
    image: Image.Image,
    name: str,
    value: float | int | None,
    *,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """One operation on an RGB image, with its `argument`."""
    return _OPERATIONS[name.removesuffix("Increasing")](image, value, resample)


def _moved(image: Image.Image, matrix: tuple, resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)


def _posterize(image: Image.Image, bits: int) -> Image.Image:
    # Pillow's own refuses to keep no bit (a black image), as a strength of 10 asks for.
    table = [value & ~((1 << 8 - max(0, bits)) - 1) for value in range(256)]
    return image.point(table * 3)


def _solarize_add(image: Image.Image, addend: int) -> Image.Image:
    table = [min(255, value + addend) if value < 128 else value for value in range(256)]
    return image.point(table * 3)


def _enhanced(kind: Callable) -> Callable:
    return lambda image, factor, resample: kind(image).enhance(factor)


_OPERATIONS: dict[str, Callable[[Image.Image, Any, Image.Resampling], Image.Image]] = {
    "AutoContrast": lambda image, value, resample: ImageOps.autocontrast(image),
    "Equalize": lambda image, value, resample: ImageOps.equalize(image),
    "Invert": lambda image, value, resample: ImageOps.invert(image),
    "Posterize": lambda image, bits, resample: _posterize(image, bits),
    "Solarize": lambda image, threshold, resample: ImageOps.solarize(image, threshold),
    "SolarizeAdd": lambda image, addend, resample: _solarize_add(image, addend),
    "Rotate": lambda image, degrees, resample: image.rotate(degrees, resample, fillcolor=FILL),
    "ShearX": lambda image, shear, resample: _moved(image, (1, shear, 0, 0, 1, 0), resample),
    "ShearY": lambda image, shear, resample: _moved(image, (1, 0, 0, shear, 1, 0), resample),
    "TranslateXRel": lambda image, share, resample: _moved(
        image, (1, 0, share * image.width, 0, 1, 0), resample
    ),
    "TranslateYRel": lambda image, share, resample: _moved(
        image, (1, 0, 0, 0, 1, share * image.height), resample
    ),
    **{name: _enhanced(kind) for name, kind in _ENHANCEMENTS.items()},
}


def _refusal(text: str, why: str) -> UserError:
    return UserError(
        f"config.data.augment.randaugment is {text!r}, but {why}: write it like {EXAMPLE!r}."
    )
