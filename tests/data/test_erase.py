"""Random erasing: how often, how large, where, and with what."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.data.erase import Erase, erase, rectangle
from avit_jax.errors import UserError

COUNT, SIZE = 2000, 32


def rectangles(settings, size=(SIZE, SIZE), count=COUNT):
    """Masks `[count, H, W]`."""
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: rectangle(*size, settings, key)))(keys))


def reference(settings, size, count, rng):
    """Heights, widths and corners by the published loop; `None` where no try fits."""
    found = []
    for _ in range(count):
        for _ in range(10):
            area = rng.uniform(settings.min_area, settings.max_area) * size[0] * size[1]
            limits = math.log(settings.min_aspect), math.log(settings.max_aspect)
            aspect = math.exp(rng.uniform(*limits))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height < size[0] and width < size[1]:
                top = rng.integers(size[0] - height + 1)
                left = rng.integers(size[1] - width + 1)
                found.append((height, width, top, left))
                break
        else:
            found.append((0, 0, 0, 0))
    return np.array(found)


def boxes(masks):
    """Height, width, top and left of each mask, which must be one full rectangle."""
    rows, columns = masks.any(2), masks.any(1)
    np.testing.assert_array_equal(masks, rows[:, :, None] & columns[:, None, :])
    return np.stack([rows.sum(1), columns.sum(1), rows.argmax(1), columns.argmax(1)], axis=1)


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (4, 40)])
def test_rectangles_are_distributed_as_by_the_published_loop(size):
    settings = Erase(probability=1.0)
    found = boxes(rectangles(settings, size))
    expected = reference(settings, size, COUNT, np.random.default_rng(0))
    for ours, theirs in zip(found.T, expected.T, strict=True):
        spread = theirs.std() / math.sqrt(COUNT)
        assert abs(ours.mean() - theirs.mean()) < 5 * spread
        assert ours.std() == pytest.approx(theirs.std(), rel=0.12)
    assert (found[:, 0] + found[:, 2] <= size[0]).all()
    assert (found[:, 1] + found[:, 3] <= size[1]).all()


def test_a_share_of_the_images_is_erased():
    erased = rectangles(Erase(probability=0.25)).any((1, 2))
    assert erased.mean() == pytest.approx(0.25, abs=0.04)


def test_an_image_into_which_no_rectangle_fits_stays_whole():
    tall = Erase(probability=1.0, min_area=0.3, max_area=0.3, min_aspect=3.0, max_aspect=3.0)
    assert not rectangles(tall, (4, 100), count=50).any()


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_what_is_erased_is_filled_and_the_rest_untouched(mode):
    images = jnp.full((64, SIZE, SIZE, 3), 7.0)
    settings = Erase(probability=0.5, mode=mode, min_area=0.2)
    found = np.asarray(jax.jit(lambda x, key: erase(x, settings, key))(images, jax.random.key(1)))
    erased = (found != 7.0).all(-1)
    boxes(erased)
    assert 0 < erased.any((1, 2)).sum() < 64
    filled = [image[mask] for image, mask in zip(found, erased, strict=True) if mask.any()]
    if mode == "const":
        assert all((pixels == 0).all() for pixels in filled)
    if mode == "rand":
        assert all((pixels == pixels[0]).all() for pixels in filled)
        assert np.std([pixels[0] for pixels in filled]) == pytest.approx(1, abs=0.4)
    if mode == "pixel":
        everything = np.concatenate(filled)
        assert everything.mean() == pytest.approx(0, abs=0.05)
        assert everything.std() == pytest.approx(1, abs=0.05)
        assert abs(np.corrcoef(everything.T)[0, 1]) < 0.1


def test_an_image_is_erased_by_its_own_key_whatever_stands_beside_it():
    settings = Erase(probability=1.0)
    images = jax.random.normal(jax.random.key(2), (4, SIZE, SIZE, 3))
    first = erase(images, settings, jax.random.key(3))
    other = erase(images.at[2:].set(0.0), settings, jax.random.key(3))
    np.testing.assert_array_equal(first[:2], other[:2])
    masks = (first != images).all(-1)
    assert not np.array_equal(masks[0], masks[1])


def test_switched_off_it_returns_the_very_array():
    images = jnp.ones((2, 4, 4, 3))
    assert erase(images, Erase(), jax.random.key(0)) is images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "noise"}, "erase.mode is 'noise': write one of pixel, rand, const"),
        ({"probability": 1.5}, "erase.probability is 1.5: write a share"),
        ({"min_area": 0.5}, "erase.min_area is 0.5 and max_area .* the smaller first"),
        ({"min_aspect": 0.0}, "erase.min_aspect is 0.0: write a number above 0"),
    ],
)
def test_senseless_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        Erase(**settings)
