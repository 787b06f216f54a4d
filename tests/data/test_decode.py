import io
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def pixels(data) -> np.ndarray:
    decoded = decode(data)
    assert decoded.mode == "RGB"
    return np.asarray(decoded).astype(int)


@pytest.fixture
def rgb(photograph) -> np.ndarray:
    return np.asarray(photograph()).astype(int)


def test_rgb_comes_back_exactly(photograph, rgb):
    np.testing.assert_array_equal(pixels(encode(photograph(), "PNG")), rgb)
    np.testing.assert_array_equal(pixels(np.asarray(photograph())), rgb)


def test_a_cmyk_jpeg_keeps_its_colours(photograph, rgb):
    data = encode(photograph().convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(pixels(data) - rgb).max() < 12


def test_a_palette_image_is_spread_to_its_colours(photograph, rgb):
    image = photograph().quantize(64)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(encode(image, "PNG")), expected)
    np.testing.assert_array_equal(pixels(encode(image, "GIF")), expected)


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    image.putpixel((0, 0), 0)
    result = pixels(encode(image, "PNG", transparency=0))
    assert result[0, 0].tolist() == [255, 255, 255] and result[1, 1].tolist() == [200, 10, 20]


@pytest.mark.parametrize("mode, value", [("RGBA", (0, 0, 0, 51)), ("LA", (0, 51))])
def test_transparency_lies_over_white(mode, value):
    result = pixels(encode(Image.new(mode, (4, 4), value), "PNG"))
    assert np.all(result == 204)


def test_a_transparent_colour_of_an_rgb_image_becomes_white(rgb):
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    result = pixels(encode(image, "PNG", transparency=(1, 2, 3)))
    assert result[0].tolist() == [[255, 255, 255], [9, 9, 9]]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_is_repeated_over_the_channels(mode, photograph):
    image = photograph().convert(mode)
    expected = np.asarray(image.convert("L"))[:, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(pixels(encode(image, "PNG")), expected)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1)])
def test_grey_pixels_are_repeated_over_the_channels(shape):
    grey = np.arange(20, dtype=np.uint8).reshape(shape)
    expected = grey.reshape(5, 4, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(pixels(grey), expected)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(file_format):
    levels = np.array([[0, 128, 129, 257 * 100, 32768, 65535]], np.uint16)
    result = pixels(encode(Image.fromarray(levels), file_format))
    assert result[0, :, 0].tolist() == [0, 0, 1, 100, 128, 255]
    assert np.all(result == result[:, :, :1])


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_known_white_are_bad(dtype):
    data = encode(Image.fromarray(np.full((4, 4), 100_000, dtype)), "TIFF")
    with pytest.raises(BadExample, match="no white level is known"):
        decode(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotated_images_stand_upright(orientation, photograph, rgb):
    # How a camera stores an upright picture under each orientation: the inverse of what undoes it.
    stored = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = photograph() if stored is None else photograph().transpose(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = pixels(encode(image, "PNG", exif=exif))
    np.testing.assert_array_equal(result, rgb)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_leaves_the_pixels_as_they_lie(photograph, rgb):
    data = encode(photograph(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f", quality=95)
    assert np.abs(pixels(data) - rgb).max() < 12


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_a_truncated_file_is_bad(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), file_format)
    with pytest.raises(BadExample, match=r"cannot be decoded: .+"):
        decode(data[: len(data) // 2])


def test_a_png_with_a_flipped_byte_is_bad(photograph):
    data = bytearray(encode(photograph(), "PNG"))
    data[60] ^= 0xFF
    with pytest.raises(BadExample):
        decode(bytes(data))


@pytest.mark.parametrize(
    "data, said",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC photograph"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b"<html></html>" * 50, "it is a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    ],
)
def test_what_often_lies_in_an_images_place_is_named(data, said):
    with pytest.raises(BadExample, match=f"cannot be decoded: .*{said}"):
        decode(data)


@pytest.mark.parametrize("data", [b"", b"just some text", b"\xff\xd8\xff"])
def test_what_is_not_an_image_is_bad(data):
    with pytest.raises(BadExample, match=f"no known image format in its {len(data)} bytes"):
        decode(data)


def test_an_image_without_pixels_is_bad():
    with pytest.raises(BadExample, match="is 5 x 0 pixels"):
        decode(np.zeros((0, 5, 3), np.uint8))


def test_pixels_of_another_shape_are_bad():
    with pytest.raises(BadExample, match=r"has pixels float32 \[4, 4\], not uint8"):
        decode(np.zeros((4, 4), np.float32))
    with pytest.raises(BadExample, match=r"has pixels uint8 \[4, 4, 2\]"):
        decode(np.zeros((4, 4, 2), np.uint8))


def test_one_opened_image_is_loaded_by_one_thread_at_a_time(photograph, rgb):
    loading, loaded = [], []

    class Opened(Image.Image):
        def load(self):
            if not loaded:
                if loading:
                    raise OSError("is being loaded")
                loading.append(1)
                time.sleep(0.05)
                loaded.append(loading.pop())
            return super().load()

    image = photograph()
    image.__class__ = Opened
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(decode, [image] * 4):
            np.testing.assert_array_equal(np.asarray(found), rgb)
