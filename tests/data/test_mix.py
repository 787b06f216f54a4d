"""Normalisation, mixup and cutmix: what becomes of pixels and of targets, together."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.data.mix import MEAN, STD, Mix, mix, normalise
from avit_jax.errors import UserError

BATCH, SIZE = 256, 16


@pytest.fixture(scope="module")
def numbered():
    """Image i holds the number i everywhere, so that a pixel tells what it was mixed from."""
    images = jnp.broadcast_to(
        jnp.arange(BATCH, dtype=jnp.float32)[:, None, None, None], (BATCH, SIZE, SIZE, 3)
    )
    return images, jnp.eye(BATCH)


def own_weights(images):
    """Weight of the own image at each pixel `[B, S, S]`, read off the mixed pixels."""
    own = np.arange(BATCH)[:, None, None]
    partner = own[::-1]
    return (np.asarray(images)[..., 0] - partner) / (own - partner)


def test_normalise_maps_imagenets_mean_to_0_and_one_deviation_to_1():
    pixels = np.stack([np.zeros(3), np.full(3, 255)]).astype(np.uint8).reshape(2, 1, 1, 3)
    normalised = normalise(jnp.asarray(pixels))
    assert normalised.dtype == jnp.float32
    np.testing.assert_allclose(normalised[0, 0, 0], -np.array(MEAN) / STD, rtol=1e-6)
    np.testing.assert_allclose(normalised[1, 0, 0], (1 - np.array(MEAN)) / STD, rtol=1e-6)


def test_switched_off_it_returns_the_very_arrays(numbered):
    images, targets = mix(*numbered, Mix(), jax.random.key(0))
    assert images is numbered[0]
    assert targets is numbered[1]


@pytest.mark.parametrize(
    "settings",
    [Mix(mixup=0.8), Mix(cutmix=1.0), Mix(mixup=0.8, cutmix=1.0), Mix(mixup=0.2, probability=0.5)],
)
def test_targets_are_mixed_as_the_pixels_are(numbered, settings):
    images, targets = mix(*numbered, settings, jax.random.key(1))
    chex.assert_equal_shape([images, numbered[0]])
    weights = own_weights(images)
    share = weights.mean((1, 2))
    rows = np.arange(BATCH)
    np.testing.assert_allclose(targets[rows, rows], share, atol=2e-3)
    np.testing.assert_allclose(targets[rows, rows[::-1]], 1 - share, atol=2e-3)
    np.testing.assert_allclose(targets.sum(-1), 1.0, atol=1e-5)


def test_mixup_blends_whole_images_and_every_image_draws_its_own_weight(numbered):
    images, _ = mix(*numbered, Mix(mixup=0.8), jax.random.key(2))
    weights = own_weights(images)
    assert weights.std(axis=(1, 2)).max() < 1e-3
    assert len(np.unique(weights[:, 0, 0].round(4))) > BATCH // 2
    # A symmetric Beta: mean 1/2, variance 1 / (4 (2 alpha + 1)).
    assert weights.mean() == pytest.approx(0.5, abs=0.08)
    assert weights[:, 0, 0].var() == pytest.approx(1 / (4 * 2.6), abs=0.03)


def test_cutmix_pastes_one_box_of_the_images_proportions(numbered):
    images, _ = mix(*numbered, Mix(cutmix=1.0), jax.random.key(3))
    weights = own_weights(images)
    own = np.isclose(weights, 1, atol=1e-3)
    pasted = np.isclose(weights, 0, atol=1e-3)
    assert (own | pasted).all()
    for box in pasted:
        rows, columns = box.any(1), box.any(0)
        np.testing.assert_array_equal(box, rows[:, None] & columns[None])
        assert np.abs(np.diff(np.flatnonzero(rows))).max(initial=1) == 1
        inside = not (rows[[0, -1]].any() or columns[[0, -1]].any())
        if inside:  # not clipped at a border
            assert abs(int(rows.sum()) - int(columns.sum())) <= 1
    assert 0.15 < pasted.mean() < 0.5  # half the area on average, less what the borders clip


def test_a_share_of_the_images_stays_as_it_is(numbered):
    images, targets = mix(
        *numbered, Mix(mixup=1.0, cutmix=1.0, probability=0.25), jax.random.key(4)
    )
    untouched = (np.asarray(images) == np.asarray(numbered[0])).all((1, 2, 3))
    assert untouched.mean() == pytest.approx(0.75, abs=0.1)
    np.testing.assert_array_equal(targets[untouched], numbered[1][untouched])


@pytest.mark.parametrize(("share", "boxes"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_where_both_are_on_cutmix_takes_its_share(numbered, share, boxes):
    images, _ = mix(*numbered, Mix(mixup=1.0, cutmix=1.0, cutmix_share=share), jax.random.key(5))
    weights = own_weights(images)
    is_box = (np.isclose(weights, 0, atol=1e-3) | np.isclose(weights, 1, atol=1e-3)).all((1, 2))
    assert is_box.mean() == pytest.approx(boxes, abs=0.1 if share == 0.5 else 0.02)


@pytest.mark.parametrize(
    ("alone", "ignored"),
    [(Mix(mixup=0.5), Mix(mixup=0.5, cutmix_share=1.0)),
     (Mix(cutmix=0.5), Mix(cutmix=0.5, cutmix_share=0.0))],
)  # fmt: skip
def test_the_share_of_cutmix_is_ignored_where_only_one_is_on(numbered, alone, ignored):
    found = [mix(*numbered, settings, jax.random.key(6)) for settings in (alone, ignored)]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_same_key_mixes_alike_and_another_differently(numbered):
    settings = Mix(mixup=0.8, cutmix=1.0)
    first, again, other = (mix(*numbered, settings, jax.random.key(seed))[0] for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("settings", [{"mixup": -0.1}, {"cutmix": -1.0}])
def test_a_negative_alpha_is_refused(settings):
    with pytest.raises(UserError, match=r"mix.* write 0 or more"):
        Mix(**settings)


@pytest.mark.parametrize("settings", [{"probability": 1.1}, {"cutmix_share": -0.1}])
def test_a_share_outside_0_to_1_is_refused(settings):
    with pytest.raises(UserError, match="write a share, from 0 to 1"):
        Mix(**settings)
