"""How far a JPEG may be shrunk while it is decoded.

JPEG stores blocks of 8 x 8 pixels by their frequencies, so a decoder gets the image at 1/2, 1/4 or
1/8 of its size from the lower ones alone, in less time than at full size. Where a crop is shrunk
anyway, that saves work; the pixels differ a little, since blocks are averaged before the resize.
"""

import io

from PIL import Image

from avit_jax.data.decode import MAX_SIDE, orientation

SHRINKS = (8, 4, 2)
LYING = range(5, 9)  # orientations of EXIF that swap width and height


def upright_size(image: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG as it is seen, from its header; `None` for all else."""
    if not image.startswith(b"\xff\xd8"):
        return None
    try:
        with Image.open(io.BytesIO(image)) as header:
            width, height = header.size
            lies = orientation(header)
            if header.format != "JPEG" or not 0 < max(width, height) <= MAX_SIDE:
                return None
    except Exception:  # the decoder says what is wrong
        return None
    return (height, width) if lies in LYING else (width, height)


def shrink_of(box: tuple[float, float, float, float], size: int) -> int:
    """The largest of 8, 4, 2 and 1 at which a crop still has `size` pixels a side."""
    left, top, right, bottom = box
    shorter = min(right - left, bottom - top)
    return next((shrink for shrink in SHRINKS if shorter >= shrink * size), 1)


def scaled_box(
    box: tuple[int, int, int, int], full: tuple[int, int], scaled: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box of an image of the size `full` in the pixels of the same image at `scaled`."""
    left, top, right, bottom = box
    across, down = scaled[0] / full[0], scaled[1] / full[1]
    # Rounding must not carry it over the edge.
    return (
        left * across,
        top * down,
        min(right * across, scaled[0]),
        min(bottom * down, scaled[1]),
    )
