import io
import sys

import numpy as np
import pytest
from PIL import Image

from avit_jax.data import augment as augment_module
from avit_jax.data import opencv
from avit_jax.data.augment import Augment, eval_image, random_box, train_image
from avit_jax.data.color_jitter import color_jitter
from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample
from avit_jax.data.randaugment import parse
from avit_jax.errors import UserError


def train(image, seed=0, size=16, **settings):
    rng = np.random.default_rng(seed)
    return train_image(image, rng, size=size, augment=Augment(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        dict(kind="inception"),
        dict(kind="affine", rotation=0.2, zoom=0.1, shift=3),
        dict(kind="none"),
    ],
)
def test_images_are_a_function_of_the_generator(settings, photograph):
    image = photograph()
    first, again = (train(np.asarray(image), seed=3, **settings) for _ in range(2))
    assert first.shape == (16, 16, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    other = train(np.asarray(image), seed=4, **settings)
    assert np.array_equal(first, other) == (settings["kind"] == "none")


def test_boxes_stay_inside_and_keep_scale_and_ratio():
    augment = Augment(min_scale=0.2, max_scale=0.5, ratio=(0.5, 2.0))
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = random_box(200, 160, rng, augment=augment)
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 160
        width, height = right - left, bottom - top
        assert 0.19 < width * height / 32000 < 0.51
        assert 0.48 < width / height < 2.06


@pytest.mark.parametrize(
    "width, height, box", [(500, 10, (243, 0, 256, 10)), (9, 300, (0, 144, 9, 156))]
)
def test_boxes_of_very_long_images_are_central(width, height, box):
    rng = np.random.default_rng(0)
    augment = Augment(min_scale=0.9)
    assert random_box(width, height, rng, augment=augment) == box


def test_half_of_the_images_are_mirrored(photograph):
    image = np.asarray(photograph(16, 16))
    settings = dict(min_scale=1.0, ratio=(1.0, 1.0))
    results = [train(image, seed=seed, **settings) for seed in range(100)]
    mirrored = [np.array_equal(result, image[:, ::-1]) for result in results]
    kept = [np.array_equal(result, image) for result in results]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True)) and 30 < sum(mirrored) < 70
    unflipped = [train(image, seed=seed, flip=False, **settings) for seed in range(20)]
    assert all(np.array_equal(result, image) for result in unflipped)


DEIT = "rand-m9-mstd0.5-inc1"


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
@pytest.mark.parametrize("settings", [{"randaugment": DEIT}, {"color_jitter": 0.4}])
def test_colours_change_behind_crop_and_flip_with_either_decoder(decoder, settings, photograph):
    if decoder == "opencv":
        pytest.importorskip("cv2", reason="OpenCV, an optional decoder, is not installed")
    image = jpeg(photograph(50, 60))
    changed = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        plain = train_image(image, rng, size=16, augment=Augment(decoder=decoder))
        if settings.get("randaugment"):
            expected = parse(DEIT).apply(Image.fromarray(plain), rng)
        else:
            expected = color_jitter(Image.fromarray(plain), rng, amount=0.4)
        found = train(image, seed=seed, decoder=decoder, **settings)
        np.testing.assert_array_equal(found, np.asarray(expected))
        changed += not np.array_equal(found, plain)
    assert changed >= 6


def test_colour_jitter_changes_brightness_contrast_and_saturation_within_its_range():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    rng = np.random.default_rng(0)
    levels = [np.asarray(color_jitter(grey, rng, amount=0.4))[0, 0, 0] for _ in range(400)]
    # Contrast and saturation leave a plain grey alone: what is seen is brightness.
    assert 60 <= min(levels) < 63 and 137 < max(levels) <= 140
    assert np.mean(levels) == pytest.approx(100, abs=4)
    halves = Image.fromarray(np.array([[[0] * 3, [200] * 3]], np.uint8))
    ratios = [
        np.ptp(np.asarray(color_jitter(halves, rng, amount=0.2)).astype(int)) for _ in range(99)
    ]
    assert 200 * 0.63 < min(ratios) < max(ratios) <= 255
    red = Image.new("RGB", (4, 4), (150, 50, 50))
    spans = [
        np.ptp(np.asarray(color_jitter(red, rng, amount=0.4))[0, 0].astype(int)) for _ in range(300)
    ]
    assert min(spans) < 70 and max(spans) > 140


def test_affine_without_ranges_only_resizes(photograph):
    image = np.asarray(photograph(8, 8))
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(train(image, size=32, kind="affine"), np.asarray(expected))


def centre_and_angle(image):
    ink = image[:, :, 0].astype(float)
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]] + 0.5
    x0, y0 = (ink * x).sum() / ink.sum(), (ink * y).sum() / ink.sum()
    xx, yy, xy = ((ink * a * b).sum() for a, b in ((x - x0,) * 2, (y - y0,) * 2, (x - x0, y - y0)))
    return x0, y0, 0.5 * np.arctan2(2 * xy, yy - xx), ink.sum()


def bar():
    image = np.zeros((32, 32), np.uint8)
    image[8:24, 14:18] = 255
    return image


def test_affine_shifts_turns_and_zooms_within_its_ranges():
    _, _, _, ink = centre_and_angle(bar()[:, :, None])
    ranges = dict(shift=3.0, rotation=0.2, zoom=0.12)
    found = {name: [] for name in ranges}
    for seed in range(60):
        for name, value in ranges.items():
            x, y, angle, total = centre_and_angle(
                train(bar(), seed, 32, kind="affine", **{name: value})
            )
            measured = {
                "shift": max(abs(x - 16), abs(y - 16)),
                "rotation": abs(angle),
                "zoom": abs(np.sqrt(total / ink) - 1),
            }
            found[name].append(measured[name])
            for other in set(ranges) - {name}:
                assert measured[other] < 0.1 * ranges[other] + 0.01
    for name, value in ranges.items():
        assert 0.7 * value < max(found[name]) < 1.1 * value


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre(photograph):
    image = photograph(300, 200)
    expected = image.resize((384, 256), Image.Resampling.BICUBIC).crop((80, 16, 304, 240))
    result = eval_image(np.asarray(image), size=224, augment=Augment())
    np.testing.assert_array_equal(result, np.asarray(expected))
    tall = eval_image(np.asarray(photograph(200, 303)), size=128, augment=Augment())
    assert tall.shape == (128, 128, 3)


def test_evaluation_of_squares_with_full_crop_is_a_plain_resize(photograph):
    expected = photograph(8, 8).resize((32, 32), Image.Resampling.BICUBIC)
    result = eval_image(np.asarray(photograph(8, 8)), size=32, augment=Augment(crop_ratio=1.0))
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_shrinking_for_evaluation_is_antialiased():
    checks = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    result = eval_image(checks, size=32, augment=Augment())
    assert np.abs(result.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2)])
def test_of_a_long_thin_image_only_the_crop_is_resized(monkeypatch, size):
    pixels = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    whole = eval_image(pixels, size=8, augment=Augment()).astype(int)
    monkeypatch.setattr(augment_module, "LARGEST_RESIZED", 1)
    assert np.abs(eval_image(pixels, size=8, augment=Augment()) - whole).max() <= 3


def test_an_image_longer_than_any_picture_is_bad_in_training_and_evaluation_alike():
    stream = io.BytesIO()
    Image.new("1", (1, 100_000)).save(stream, "PNG")
    for transform in (train, lambda image: eval_image(image, size=224, augment=Augment())):
        with pytest.raises(BadExample, match="is 1 x 100000 pixels, too long and thin"):
            transform(stream.getvalue())


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(kind="random"), "augment.kind is 'random': write one of inception, affine, none"),
        (dict(min_scale=0.0), "augment.min_scale is 0.0: write a number above 0"),
        (dict(min_scale=0.9, max_scale=0.5), "augment.min_scale is 0.9"),
        (dict(ratio=(2.0, 0.5)), "augment.ratio is .* the smaller first"),
        (dict(rotation=-1.0), "augment.rotation is -1.0: write 0 or more"),
        (dict(zoom=1.0), "augment.zoom is 1.0: write a share"),
        (dict(shift=-2), "augment.shift is -2: write 0 or more"),
        (dict(decoder="turbo"), "augment.decoder is 'turbo': write one of pillow, opencv"),
        (dict(crop_ratio=1.5), "augment.crop_ratio is 1.5"),
        (dict(randaugment="m9"), "augment.randaugment is 'm9'.*: write it like"),
        (dict(randaugment=DEIT, color_jitter=0.4), "color_jitter is 0.4, but RandAugment"),
        (dict(color_jitter=-0.4), "augment.color_jitter is -0.4: write 0 or more"),
        (dict(interpolation="nearest"), "interpolation is 'nearest': write one of bicubic, random"),
        (dict(kind="affine", randaugment=DEIT), "needs kind 'inception', not 'affine'"),
        (dict(kind="affine", decoder="opencv"), "'opencv' needs kind 'inception', not 'affine'"),
    ],
)
def test_senseless_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment(**settings)


def test_opencv_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(opencv.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"OpenCV is not installed; run pip install 'avit_jax\[op"):
        opencv.require_opencv()


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def test_opencv_leaves_hard_files_to_pillow(photograph):
    truncated = jpeg(photograph(64, 64))[:-40]
    cmyk = jpeg(photograph().convert("CMYK"))
    png = io.BytesIO()
    photograph().save(png, "PNG")
    hard = (truncated, cmyk, png.getvalue(), b"\xff\xd8")
    assert [opencv._orientation_of_plain_jpeg(data) for data in hard] == [None] * 4


EXIF = Image.Exif()
EXIF[0x0112] = 6
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
)


@pytest.mark.parametrize(
    "options, lies", [({}, 1), ({"exif": EXIF}, 6), ({"xmp": XMP}, 6)], ids=["no", "exif", "xmp"]
)
def test_both_decoders_turn_an_image_by_the_same_number(photograph, options, lies):
    data = jpeg(photograph(), **options)
    assert opencv._orientation_of_plain_jpeg(data) == lies
    assert decode(data).size == ((40, 30) if lies == 1 else (30, 40))


def test_opencv_decodes_as_pillow_does(photograph):
    pytest.importorskip("cv2", reason="OpenCV, an optional decoder, is not installed")
    for data in (
        jpeg(photograph()),
        jpeg(photograph(), exif=EXIF),
        jpeg(photograph(), xmp=XMP),
        jpeg(photograph().convert("L")),
    ):
        expected = np.asarray(opencv.decode_with_pillow(data)).astype(int)
        assert np.abs(opencv.decode(data) - expected).max() <= 2
    result = train(jpeg(photograph(300, 200)), decoder="opencv")
    expected = train(jpeg(photograph(300, 200)))
    assert np.abs(result.astype(int) - expected).mean() < 3
