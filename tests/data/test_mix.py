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


GROUP = 32  # of images that draw together


def in_groups(rows):
    return rows.reshape(-1, GROUP, *rows.shape[1:])


@pytest.fixture(scope="module")
def grouped(numbered):
    """Own weights `[G, GROUP, S, S]` of many groups, with their targets, by timm's rule."""
    settings = Mix(mixup=0.8, cutmix=1.0, per="batch", group=GROUP)
    weights, own, partners = [], [], []
    mixed = jax.jit(lambda key: mix(*numbered, settings, key))
    numbers = np.arange(BATCH)
    mirrored = in_groups(numbers)[:, ::-1].ravel()
    for seed in range(16):
        images, targets = map(np.asarray, mixed(jax.random.key(seed)))
        share = (images[..., 0] - mirrored[:, None, None]) / (numbers - mirrored)[:, None, None]
        weights.append(in_groups(share))
        own.append(in_groups(targets[numbers, numbers]))
        partners.append(in_groups(targets[numbers, mirrored]))
    return (np.concatenate(parts) for parts in (weights, own, partners))


def test_images_of_a_group_draw_one_lambda_one_kind_and_one_box(grouped):
    weights, own, partners = grouped
    assert len(weights) == 16 * BATCH // GROUP
    np.testing.assert_allclose(weights, weights[:, :1] + 0 * weights, atol=1e-3)
    drawn = weights[:, 0]
    # The target's share is that of the box after it was clipped ("corrected lambda").
    np.testing.assert_allclose(own, drawn.mean((1, 2))[:, None] + 0 * own, atol=2e-3)
    np.testing.assert_allclose(own + partners, 1.0, atol=1e-5)
    is_box = (np.isclose(drawn, 0, atol=1e-3) | np.isclose(drawn, 1, atol=1e-3)).all((1, 2))
    assert is_box.mean() == pytest.approx(0.5, abs=0.15)
    blends = drawn[~is_box][:, 0, 0]
    assert blends.mean() == pytest.approx(0.5, abs=0.12)
    assert blends.var() == pytest.approx(1 / (4 * 2.6), abs=0.04)


def test_boxes_are_those_of_timms_rule(numbered):
    """Even sides of int(S * sqrt(1 - lambda)) // 2 * 2 pixels about a uniform pixel, clipped."""
    settings = Mix(cutmix=1.0, per="batch", group=2)
    rng, mixed = np.random.default_rng(0), jax.jit(lambda key: mix(*numbered, settings, key))
    found = []
    for seed in range(16):
        images = np.asarray(mixed(jax.random.key(seed))[0])[::2, :, :, 0]
        pasted = ~np.isclose(images, np.arange(0, BATCH, 2)[:, None, None], atol=1e-3)
        found.append(pasted)
    pasted = np.concatenate(found)
    rows, columns = pasted.any(2), pasted.any(1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None, :])
    count = len(pasted)
    half = (SIZE * np.sqrt(1 - rng.beta(1, 1, count))).astype(int) // 2
    centre = rng.integers(SIZE, size=count)
    heights = np.clip(centre + half, 0, SIZE) - np.clip(centre - half, 0, SIZE)
    expected = np.bincount(heights, minlength=SIZE + 1) / count
    for sides in (rows.sum(1), columns.sum(1)):
        frequency = np.bincount(sides, minlength=SIZE + 1) / count
        assert np.abs(frequency - expected).max() < 0.04
    inside = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])
    assert (rows.sum(1)[inside] % 2 == 0).all() and (rows.sum(1) == columns.sum(1))[inside].all()


def test_without_a_group_all_images_of_a_step_draw_together(numbered):
    settings = Mix(mixup=0.8, per="batch")
    weights = own_weights(mix(*numbered, settings, jax.random.key(0))[0])
    np.testing.assert_allclose(weights, weights[0, 0, 0], atol=2e-3)


def test_a_group_is_mixed_or_left_with_the_probability(numbered):
    settings = Mix(mixup=1.0, per="batch", group=2, probability=0.25)
    images, _ = mix(*numbered, settings, jax.random.key(4))
    untouched = (np.asarray(images) == np.asarray(numbered[0])).all((1, 2, 3)).reshape(-1, 2)
    assert (untouched[:, 0] == untouched[:, 1]).all()
    assert untouched.mean() == pytest.approx(0.75, abs=0.12)


def test_switched_off_on_the_device_nothing_is_mixed(numbered):
    settings = Mix(mixup=0.8, cutmix=1.0)
    mixed = jax.jit(lambda on: mix(*numbered, settings, jax.random.key(0), on=on))
    jax.tree.map(np.testing.assert_array_equal, mixed(False), numbered)
    assert not np.array_equal(mixed(True)[0], numbered[0])


def test_groups_are_refused_where_they_cannot_be():
    with pytest.raises(UserError, match=r"mix.per is 'pair': write one of image, batch"):
        Mix(per="pair")
    with pytest.raises(UserError, match=r"mix.group is 4, but per 'image' every image draws"):
        Mix(group=4)
    with pytest.raises(UserError, match=r"mix.group is 4, of which 6 images a step"):
        Mix(per="batch", group=4).refuse_uneven(6)
