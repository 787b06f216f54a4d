"""OpenCV's JPEG decoder and resize: about three times Pillow's speed, for training only.

The decoded pixels equal Pillow's; the resized ones do not, because OpenCV's bicubic is not
antialiased. Shrinking therefore averages areas, and evaluation always uses Pillow.
"""

import functools
import importlib.util
import io
from types import ModuleType

import numpy as np
from PIL import Image

from avit_jax.data.decode import decode as decode_with_pillow
from avit_jax.data.decode import orientation, turned
from avit_jax.errors import UserError


def require_opencv() -> None:
    """Raises UserError with the remedy where OpenCV is not installed."""
    if importlib.util.find_spec("cv2") is None:
        raise UserError(
            "data.augment.decoder is 'opencv' but OpenCV is not installed; "
            "run pip install 'avit_jax[opencv]' or write decoder = 'pillow'"
        )


def decode(image: bytes | np.ndarray, *, shrink: int = 1) -> np.ndarray:
    """Returns the image as upright RGB, uint8 [H, W, 3].

    `shrink` is that of `avit_jax.data.decode.decode`. OpenCV decodes plain JPEGs only. All else
    goes to Pillow: OpenCV reads CMYK and transparency differently, and returns a truncated JPEG
    half grey instead of failing.

    Raises:
        BadExample: as `avit_jax.data.decode.decode`.
    """
    lies = _orientation_of_plain_jpeg(image) if isinstance(image, bytes) else None
    if lies is not None:
        cv2 = _cv2()
        colour = {
            1: cv2.IMREAD_COLOR,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8,
        }[shrink]
        # OpenCV turns images by EXIF alone.
        flags = colour | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), flags)
        if pixels is not None:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
            return pixels if lies == 1 else np.asarray(turned(Image.fromarray(pixels), lies))
    return np.asarray(decode_with_pillow(image, shrink=shrink))


def resized_crop(
    pixels: np.ndarray,
    box: tuple[float, float, float, float],
    size: int,
    *,
    mirrored: bool,
    fast: bool = False,
) -> np.ndarray:
    """Returns `box` = (left, top, right, bottom) of uint8 [H, W, 3] as uint8 [size, size, 3].

    Sides between two pixels are moved to the nearer one. `fast` shrinks by less than 2 linearly
    between the nearest pixels, of which it then passes over few.
    """
    cv2 = _cv2()
    left, top, right, bottom = (round(side) for side in box)
    sides = right - left, bottom - top
    interpolation = cv2.INTER_AREA if min(sides) > size else cv2.INTER_CUBIC
    if fast and size < min(sides) and max(sides) < 2 * size:
        interpolation = cv2.INTER_LINEAR
    crop = pixels[top:bottom, left:right]
    resized = cv2.resize(crop, (size, size), interpolation=interpolation)
    return cv2.flip(resized, 1) if mirrored else resized


@functools.cache
def _cv2() -> ModuleType:
    import cv2

    # Images are decoded beside each other; threads within one would only wait for those of others.
    cv2.setNumThreads(1)
    return cv2


def _orientation_of_plain_jpeg(image: bytes) -> int | None:
    """How a JPEG that both decoders read alike lies; `None` for all else."""
    # The end marker is missing from a truncated file.
    if not image.startswith(b"\xff\xd8") or b"\xff\xd9" not in image[-64:]:
        return None
    try:
        with Image.open(io.BytesIO(image)) as header:
            plain = header.format == "JPEG" and header.mode in ("RGB", "L")
            return orientation(header) if plain else None
    except Exception:
        return None
