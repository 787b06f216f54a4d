"""Encoded bytes or raw pixels to an upright RGB image, whatever mode the file is in.

Photographs on the web come as CMYK, palette, greyscale, 16-bit and EXIF-rotated files; each becomes
the 8-bit RGB image that a viewer shows. What cannot be decoded raises BadExample with the reason.
Every decoder here is Pillow's, whose pixels evaluation relies on; `opencv.py` has a faster one
for training.
"""

import io
import threading

import numpy as np
from PIL import ExifTags, Image

from avit_jax.data.example import BadExample, message_of

SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
# How files begin that often lie where an image should be, and what to say of them.
NO_IMAGES = {
    b"version https://git-lfs": "it is a pointer of Git LFS and not the file itself: git lfs pull",
    b"<!doctype html": "it is a web page and not an image: download it anew",
    b"<html": "it is a web page and not an image: download it anew",
    b"<svg": "it is an SVG drawing, which has no pixels",
}
HEIF_BRANDS = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")
# What turns an image upright, by its EXIF orientation; 1 is upright already.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow decodes an opened image when it is first used, which two threads must not do to one.
_LOADING = threading.Lock()
MAX_SIDE = 65_535  # pixels: what a JPEG can have; anything longer is no picture


def decode(image: bytes | np.ndarray | Image.Image, *, shrink: int = 1) -> Image.Image:
    """Returns the image as 8-bit RGB, turned upright.

    Transparent pixels are laid over white, the page that such graphics are drawn for. 16-bit
    greyscale is scaled by 1/257, so that 65535 becomes 255. Of animations the first frame counts.

    Args:
        image: the bytes of an image file, one that Pillow has opened (several threads may have the
            same one), or pixels uint8 [H, W] or
            [H, W, 1 | 3 | 4].
        shrink: 1, 2, 4 or 8: sides of a JPEG, of which only so much is decoded, are divided by it
            (and rounded up).

    Raises:
        BadExample: the bytes are not an image, are truncated, hold values without a known white,
            or a side has no or more than `MAX_SIDE` pixels.
    """
    if isinstance(image, np.ndarray):
        return to_rgb(_from_pixels(image))
    try:
        if isinstance(image, Image.Image):
            with _LOADING:
                upright = _loaded_upright(image)
        else:
            upright = _loaded_upright(Image.open(io.BytesIO(image)), shrink)
    except (MemoryError, BadExample):
        raise
    # On broken files Pillow raises OSError, SyntaxError, ValueError, zlib.error and others.
    except Exception as error:
        detail = message_of(error)
        if isinstance(error, Image.UnidentifiedImageError):
            detail = _what_it_is(image)
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


def _loaded_upright(opened: Image.Image, shrink: int = 1) -> Image.Image:
    refuse_size(*opened.size)
    if shrink > 1 and opened.format == "JPEG":
        opened.draft(None, (opened.width // shrink, opened.height // shrink))
    opened.load()
    return turned(opened, orientation(opened))


def _what_it_is(content: bytes) -> str:
    """What is known of a file that is no image to Pillow."""
    start = content[:512].lstrip().lower()
    said = next((said for mark, said in NO_IMAGES.items() if start.startswith(mark)), None)
    if start[4:12] in HEIF_BRANDS:
        said = "it is a HEIC photograph, which has to be converted to JPEG or PNG"
    return said or f"no known image format in its {len(content)} bytes"


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise BadExample(
            f"has pixels {pixels.dtype} {list(pixels.shape)}, not uint8 [H, W] or [H, W, 1 | 3 | 4]"
        )
    refuse_size(pixels.shape[1], pixels.shape[0])
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and channels == 1 else pixels)


def refuse_size(width: int, height: int) -> None:
    """Raises BadExample, before anything is decoded, for a side too long for any picture, or 0."""
    if not width or not height:
        raise BadExample(f"is {width} x {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise BadExample(
            f"is {width} x {height} pixels, too long and thin to be resized: a side has at most "
            f"{MAX_SIDE}"
        )


def orientation(image: Image.Image) -> int:
    """How an image lies, as EXIF numbers it: 1 is upright, and so is whatever is not known.

    Where EXIF says nothing, Pillow also looks into XMP, which some editors write alone.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    # Malformed EXIF blocks raise many kinds of error; a viewer then shows the pixels as they lie.
    except Exception:
        return 1
    return value if value in TURNS else 1


def turned(image: Image.Image, lies: int) -> Image.Image:
    """An image upright that lies as `orientation` says."""
    return image.transpose(TURNS[lies]) if lies in TURNS else image


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadExample("holds 32-bit pixels, for which no white level is known")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
