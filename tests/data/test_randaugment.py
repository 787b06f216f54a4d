"""RandAugment: notation, strengths, and every operation to the byte."""

import collections

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from avit_jax.data.randaugment import RandAugment, argument, operate, parse
from avit_jax.errors import UserError

DEIT = "rand-m9-mstd0.5-inc1"
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC

# What timm's level functions give, by strength; the second is the other direction.
ARGUMENTS = {
    # name: {strength: (value, the other way)}
    "AutoContrast": {9.0: (None, None)},
    "Equalize": {9.0: (None, None)},
    "Invert": {9.0: (None, None)},
    "Rotate": {0.0: (0, 0), 9.0: (27.0, -27.0), 10.0: (30.0, -30.0)},
    "ShearX": {5.0: (0.15, -0.15), 9.0: (0.27, -0.27)},
    "ShearY": {5.0: (0.15, -0.15), 9.0: (0.27, -0.27)},
    "TranslateXRel": {2.0: (0.09, -0.09), 9.0: (0.405, -0.405)},
    "TranslateYRel": {2.0: (0.09, -0.09), 9.0: (0.405, -0.405)},
    "Posterize": {0.0: (0, 0), 9.0: (3, 3), 10.0: (4, 4)},
    "PosterizeIncreasing": {0.0: (4, 4), 5.0: (2, 2), 9.0: (1, 1), 10.0: (0, 0)},
    "Solarize": {0.0: (0, 0), 9.0: (230, 230), 10.0: (256, 256)},
    "SolarizeIncreasing": {0.0: (256, 256), 9.0: (26, 26), 10.0: (0, 0)},
    "SolarizeAdd": {0.0: (0, 0), 9.0: (99, 99), 10.0: (110, 110)},
    "Color": {0.0: (0.1, 0.1), 9.0: (1.72, 1.72)},
    "ColorIncreasing": {0.0: (1.0, 1.0), 9.0: (1.81, 0.19), 10.0: (1.9, 0.1)},
    "ContrastIncreasing": {9.0: (1.81, 0.19)},
    "BrightnessIncreasing": {9.0: (1.81, 0.19)},
    "SharpnessIncreasing": {9.0: (1.81, 0.19)},
}


def affine(image, *matrix):
    """Pillow's inverse map, bare pixels filled with ImageNet's mean."""
    fill = tuple(round(255 * mean) for mean in (0.485, 0.456, 0.406))
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BICUBIC, fillcolor=fill)


def by_table(image, function):
    return Image.fromarray(np.vectorize(function, otypes=[np.uint8])(np.asarray(image)))


def blend(degenerate, image, factor):
    """What an enhancement is: from an image that lacks something, past the image itself."""
    low, high = (np.asarray(one, np.float32) for one in (degenerate, image))
    mixed = low + np.float32(factor) * (high - low)
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def grey(image):
    return Image.merge("RGB", [image.convert("L")] * 3)


def mean_grey(image):
    mean = int(np.asarray(image.convert("L")).mean() + 0.5)
    return Image.new("RGB", image.size, (mean,) * 3)


def equalized(image):
    planes = []
    for plane in np.moveaxis(np.asarray(image), -1, 0):
        counts = np.bincount(plane.ravel(), minlength=256)
        step = (plane.size - counts[np.flatnonzero(counts)[-1]]) // 255
        before = np.concatenate([[0], np.cumsum(counts)[:-1]])
        table = (step // 2 + before) // step
        planes.append(table.clip(max=255).astype(np.uint8)[plane])
    return Image.fromarray(np.stack(planes, -1))


def contrasted(image):
    planes = []
    for plane in np.moveaxis(np.asarray(image), -1, 0):
        low, high = int(plane.min()), int(plane.max())
        scale = 255.0 / (high - low)
        table = [int(value * scale + -low * scale) for value in range(256)]
        planes.append(np.clip(table, 0, 255).astype(np.uint8)[plane])
    return Image.fromarray(np.stack(planes, -1))


# Independent of the module: from Pillow's basic functions or by hand.
REFERENCES = {
    "AutoContrast": (None, contrasted),
    "Equalize": (None, equalized),
    "Invert": (None, lambda image: by_table(image, lambda value: 255 - value)),
    "Posterize": (1, lambda image: by_table(image, lambda value: value & 0b1000_0000)),
    "PosterizeIncreasing": (0, lambda image: Image.new("RGB", image.size)),
    "SolarizeIncreasing": (
        26, lambda image: by_table(image, lambda value: value if value < 26 else 255 - value)),
    "SolarizeAdd": (
        99, lambda image: by_table(image, lambda v: min(255, v + 99) if v < 128 else v)),
    "Rotate": (27.0, lambda image: image.rotate(27.0, BICUBIC, fillcolor=(124, 116, 104))),
    "ShearX": (0.27, lambda image: affine(image, 1, 0.27, 0, 0, 1, 0)),
    "ShearY": (-0.27, lambda image: affine(image, 1, 0, 0, -0.27, 1, 0)),
    "TranslateXRel": (0.405, lambda image: affine(image, 1, 0, 0.405 * image.width, 0, 1, 0)),
    "TranslateYRel": (-0.2, lambda image: affine(image, 1, 0, 0, 0, 1, -0.2 * image.height)),
    "BrightnessIncreasing": (
        1.81, lambda image: blend(Image.new("RGB", image.size), image, 1.81)),
    "ContrastIncreasing": (0.19, lambda image: blend(mean_grey(image), image, 0.19)),
    "ColorIncreasing": (1.81, lambda image: blend(grey(image), image, 1.81)),
    "SharpnessIncreasing": (1.5, lambda image: ImageEnhance.Sharpness(image).enhance(1.5)),
}  # fmt: skip


@pytest.fixture(scope="module")
def noisy(photograph):
    """A picture in which every operation changes something, and pixels take most values."""
    smooth = np.asarray(photograph(48, 40, seed=5)).astype(int)
    noise = np.random.default_rng(0).integers(-40, 40, smooth.shape)
    return Image.fromarray((smooth + noise).clip(8, 240).astype(np.uint8))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_follow_the_strength_as_timms_do(name):
    for strength, expected in ARGUMENTS[name].items():
        found = tuple(argument(name, strength, negated=negated) for negated in (False, True))
        assert found == (pytest.approx(expected) if expected[0] is not None else expected)


@pytest.mark.parametrize("name", REFERENCES)
def test_an_operation_is_its_definition_to_the_byte(name, noisy):
    value, reference = REFERENCES[name]
    found = np.asarray(operate(noisy, name, value))
    np.testing.assert_array_equal(found, np.asarray(reference(noisy)))
    assert not np.array_equal(found, np.asarray(noisy))


def test_every_operation_has_a_reference_and_there_are_fifteen():
    assert set(parse(DEIT).operations) <= REFERENCES.keys() | {"Posterize"}
    assert len(parse(DEIT).operations) == 15
    plain = {name.removesuffix("Increasing") for name in parse(DEIT).operations}
    assert set(parse("rand-m9").operations) == plain


def test_the_notation_is_timms():
    assert parse(DEIT) == RandAugment(magnitude=9, noise=0.5, increasing=True)
    assert parse("rand") == RandAugment(magnitude=10, noise=0, layers=2, probability=0.5)
    assert parse("rand-n3-mmax30-m15-p0.8-mstd101") == RandAugment(
        magnitude=15, noise=101, layers=3, probability=0.8, largest=30
    )


@pytest.mark.parametrize(
    "text", ["augmix-m3", "rand-m9-w0", "rand-m", "rand-m9-inc2", "rand-n1.5", "rand-m11",
             "rand-p1.5", "rand-n0", "m9", "", "rand-m9-", "rand_m9"],
)  # fmt: skip
def test_other_notations_are_refused_with_an_example(text):
    with pytest.raises(UserError, match=r"randaugment is .*write it like 'rand-m9-mstd0.5-inc1'"):
        parse(text)


def recorded(monkeypatch, policy, count, **options):
    """Names, values and resampling of the operations in `count` images."""
    calls = []

    def record(image, name, value, *, resample):
        calls.append((name, value, resample))
        return image

    monkeypatch.setattr("avit_jax.data.randaugment.operate", record)
    rng = np.random.default_rng(0)
    for _ in range(count):
        policy.apply(None, rng, **options)
    return calls


def test_each_of_two_layers_is_carried_out_half_the_time_by_any_operation(monkeypatch):
    calls = recorded(monkeypatch, parse(DEIT), 6000)
    assert len(calls) == pytest.approx(6000, rel=0.05)
    counts = collections.Counter(name for name, _, _ in calls)
    assert counts.keys() == set(parse(DEIT).operations)
    assert max(abs(count / len(calls) - 1 / 15) for count in counts.values()) < 0.015


def test_strengths_are_normal_and_clipped_and_directions_even(monkeypatch):
    calls = recorded(monkeypatch, parse(DEIT), 20000)
    angles = np.array([value for name, value, _ in calls if name == "Rotate"])
    assert np.mean(angles > 0) == pytest.approx(0.5, abs=0.05)
    strengths = np.abs(angles) / 3
    assert strengths.max() == 10.0  # clipped: two deviations above the mean
    assert np.mean(strengths == 10.0) == pytest.approx(0.0228, abs=0.01)
    assert np.median(strengths) == pytest.approx(9, abs=0.05)
    within = np.mean(np.abs(strengths - 9) < 0.5)
    assert within == pytest.approx(0.683, abs=0.04)


def test_noise_above_a_hundred_is_uniform_and_none_is_the_magnitude_itself():
    rng = np.random.default_rng(0)
    uniform = np.array([parse("rand-m8-mstd101").strength(rng) for _ in range(2000)])
    assert 0 <= uniform.min() < 0.1 and 7.9 < uniform.max() <= 8
    assert uniform.mean() == pytest.approx(4, abs=0.2)
    assert {parse("rand-m8").strength(rng) for _ in range(9)} == {8.0}


def test_interpolation_is_bicubic_or_drawn(monkeypatch):
    for kind, expected in (("bicubic", {BICUBIC}), ("random", {BILINEAR, BICUBIC})):
        calls = recorded(monkeypatch, parse(DEIT), 40, interpolation=kind)
        assert {resample for *_, resample in calls} == expected


def test_the_table_operations_stay_what_imageops_says(noisy):
    for name, function in (
        ("AutoContrast", ImageOps.autocontrast),
        ("Equalize", ImageOps.equalize),
    ):
        expected = np.asarray(function(noisy))
        np.testing.assert_array_equal(np.asarray(operate(noisy, name, None)), expected)
