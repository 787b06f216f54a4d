"""Colour jitter: brightness, contrast and saturation drawn anew for each image, in random order.

As torchvision's `ColorJitter` defines it, on Pillow's images and without hue.
"""

import numpy as np
from PIL import Image, ImageEnhance

_ENHANCEMENTS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def color_jitter(image: Image.Image, rng: np.random.Generator, *, amount: float) -> Image.Image:
    """Returns the RGB image with each of the three multiplied by a factor near 1.

    The factors are uniform between max(0, 1 - amount) and 1 + amount.
    """
    for number in rng.permutation(len(_ENHANCEMENTS)):
        factor = rng.uniform(max(0.0, 1.0 - amount), 1.0 + amount)
        image = _ENHANCEMENTS[number](image).enhance(factor)
    return image
