"""Encoded bytes or raw pixels to an upright RGB image, whatever mode the file is in.

Photographs on the web come as CMYK, palette, greyscale, 16-bit and EXIF-rotated files; each becomes
the 8-bit RGB image that a viewer shows. What cannot be decoded raises BadExample with the reason.
Every decoder here is Pillow's, whose pixels evaluation relies on; `opencv.py` has a faster one
for training.
"""

import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

from avit_jax.data.example import BadExample, message_of

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


def decode(image: bytes | np.ndarray | Image.Image) -> Image.Image:
    """Returns the image as 8-bit RGB, turned upright.

    Transparent pixels are laid over white, the page that such graphics are drawn for. 16-bit
    greyscale is scaled by 1/257, so that 65535 becomes 255. Of animations the first frame counts.

    Args:
        image: the bytes of an image file, one that Pillow has opened, or pixels uint8 [H, W] or
            [H, W, 1 | 3 | 4].

    Raises:
        BadExample: the bytes are not an image, are truncated, or hold values without a known white.
    """
    if isinstance(image, np.ndarray):
        return to_rgb(_from_pixels(image))
    try:
        opened = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(image))
        opened.load()
        upright = _turn_upright(opened)
    except MemoryError:
        raise
    # On broken files Pillow raises OSError, SyntaxError, ValueError, zlib.error and others.
    except Exception as error:
        detail = message_of(error)
        if isinstance(error, Image.UnidentifiedImageError):
            detail = f"no known image format in its {len(image)} bytes"
        raise BadExample(f"cannot be decoded: {detail}") from error
    return to_rgb(upright)


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image of any Pillow mode as 8-bit RGB; see `decode` for the rules."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "I":
        return _from_sixteen_bits(image)
    if image.mode == "F":
        raise BadExample("holds floating-point pixels, for which no white level is known")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise BadExample(
            f"has pixels {pixels.dtype} {list(pixels.shape)}, not uint8 [H, W] or [H, W, 1 | 3 | 4]"
        )
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and channels == 1 else pixels)


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Malformed EXIF blocks raise many kinds of error; a viewer then shows the pixels as they lie.
    except Exception:
        return image
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadExample("holds 32-bit pixels, for which no white level is known")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
