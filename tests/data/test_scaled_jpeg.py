"""JPEGs that are decoded at a part of their size: which part, and how far the pixels differ."""

import io

import numpy as np
import pytest
from PIL import Image

from avit_jax.data import opencv, scaled_jpeg
from avit_jax.data.augment import Augment, train_image
from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample
from avit_jax.errors import UserError

TURNED = Image.Exif()
TURNED[0x0112] = 6


def scene(width, height):
    """Smooth surfaces with edges, as photographs have them."""
    y, x = np.mgrid[:height, :width] / 40.0
    waves = np.stack([np.sin(x + 0.3 * y), np.cos(0.7 * y), np.sin(0.5 * x * np.cos(0.1 * y))], -1)
    pixels = 128 + 90 * waves
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (230, 40, 60)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92, **options)
    return stream.getvalue()


def train(image, seed, **settings):
    generator = np.random.default_rng(seed)
    pixels = train_image(image, generator, size=64, augment=Augment(**settings))
    return pixels.astype(int), generator.random()


@pytest.mark.parametrize(
    "side, shrink", [(63, 1), (127, 1), (128, 2), (255, 2), (256, 4), (511, 4), (512, 8), (9999, 8)]
)
def test_a_crop_stays_as_large_as_it_is_delivered(side, shrink):
    assert scaled_jpeg.shrink_of((10, 20, 10 + side, 20 + 2 * side), 64) == shrink


def test_boxes_keep_their_place_and_do_not_leave_the_image():
    assert scaled_jpeg.scaled_box((0, 10, 501, 401), (501, 401), (126, 101)) == pytest.approx(
        (0, 10 * 101 / 401, 126, 101)
    )
    for width in range(1, 400):
        scaled = -(-width // 8)
        box = scaled_jpeg.scaled_box((0, 0, width, width), (width, width), (scaled, scaled))
        assert box[2] <= scaled and box[3] <= scaled


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
@pytest.mark.parametrize("options", [{}, {"exif": TURNED}, {"progressive": True}])
def test_crops_are_those_of_full_decoding_up_to_a_few_levels(decoder, options):
    if decoder == "opencv":
        pytest.importorskip("cv2", reason="OpenCV, an optional decoder, is not installed")
    image = jpeg(scene(700, 500), **options)
    differences = []
    for seed in range(12):
        full, after_full = train(image, seed, decoder=decoder)
        scaled, after = train(image, seed, decoder=decoder, fast_shrink=True)
        assert after == after_full  # the same draws, so the same box and flip
        differences.append(np.abs(scaled - full).mean())
    assert 0 < max(differences) < 4 and np.mean(differences) < 2  # of 255


def test_less_is_decoded():
    image = jpeg(scene(701, 500))
    assert [decode(image, shrink=shrink).size for shrink in (1, 2, 4, 8)] == [
        (701, 500),
        (351, 250),
        (176, 125),
        (88, 63),
    ]


def test_what_is_no_jpeg_is_decoded_in_full():
    stream = io.BytesIO()
    scene(300, 300).save(stream, "PNG")
    for image in (stream.getvalue(), np.asarray(scene(300, 300))):
        full, after_full = train(image, 3)
        same, after = train(image, 3, fast_shrink=True)
        assert after == after_full
        np.testing.assert_array_equal(full, same)


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
def test_a_broken_jpeg_leaves_the_generator_untouched(decoder):
    generator = np.random.default_rng(5)
    augment = Augment(fast_shrink=True, decoder=decoder)
    with pytest.raises(BadExample, match="truncated"):
        train_image(jpeg(scene(300, 300))[:2000], generator, size=64, augment=augment)
    assert generator.random() == np.random.default_rng(5).random()


def test_only_random_crops_are_decoded_smaller():
    with pytest.raises(UserError, match=r"fast_shrink needs kind 'inception'.*not 'affine'"):
        Augment(kind="affine", fast_shrink=True)


@pytest.mark.parametrize("side", [65, 96, 127, 128, 300])
def test_opencv_shrinks_fast_only_where_it_passes_over_few_pixels(side):
    pytest.importorskip("cv2", reason="OpenCV, an optional decoder, is not installed")
    pixels = np.asarray(scene(400, 300))
    box = 50, 0, 50 + side, side
    exact, fast = (
        opencv.resized_crop(pixels, box, 64, mirrored=False, fast=fast).astype(int)
        for fast in (False, True)
    )
    assert np.array_equal(exact, fast) == (side >= 128)
    assert np.abs(exact - fast).mean() < 4  # of 255
