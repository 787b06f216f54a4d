"""Neighbours on the grid: as recorded, within the image, and drawn from its content alone."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.data.mix import normalise
from avit_jax.methods.avit import spread
from avit_jax.models.vit import ViTShape
from tests.methods.avit.halting_by_hand import beside

GOLDEN = dict(np.load(Path(__file__).parents[2] / "golden" / "neighbour_halting.npz"))
LEVELS = tuple(GOLDEN["levels"].tolist())


@pytest.mark.parametrize("level", LEVELS)
def test_neighbours_are_the_recorded_ones(level):
    offsets = spread.offsets_of(level)
    footprint = GOLDEN[f"intended/footprint/{level}"]
    around = {(row - 2, column - 2) for row, column in np.argwhere(footprint)}
    assert offsets == around - {(0, 0)}
    assert len(offsets) + 1 == GOLDEN["intended/footprint_size"][LEVELS.index(level)]
    shape = ViTShape(image_size=224, patch_size=16, distilled=True)  # two tokens in front
    ended = np.pad(GOLDEN["intended/new_halted"], ((0, 0), (2, 0)), constant_values=True)
    found = np.asarray(spread.taken_along(jnp.asarray(ended), None, shape, offsets))
    assert not found[:, :2].any()
    left = GOLDEN["intended/mask_in"] & ~found[:, 2:]
    np.testing.assert_array_equal(left, GOLDEN[f"intended/mask_out/{level}"])


def test_other_names_mean_the_same_and_every_recorded_one_is_there():
    assert set(spread.NEIGHBOURS) == set(LEVELS)
    assert spread.offsets_of("dilated") == spread.offsets_of("dilated-isotropic")
    assert spread.offsets_of("double_square") == spread.offsets_of("double-square")
    assert not spread.offsets_of("none")


@pytest.mark.parametrize("grid", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ["cross", "circle"])
def test_small_grids_keep_their_edges(name, grid):
    sources = np.random.default_rng(grid).random((3, grid, grid)) < 0.3
    found = np.asarray(spread.beside(jnp.asarray(sources), spread.offsets_of(name)))
    for image in range(3):
        for row, column in np.ndindex(grid, grid):
            expected = any(
                beside(name, row - there, column - across)
                for there, across in np.argwhere(sources[image])
            )
            assert found[image, row, column] == expected


def pixels(count=6, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def test_content_is_the_same_in_every_program_and_place_and_differs_with_every_pixel():
    bytes_ = pixels()
    given = np.asarray(jax.jit(normalise)(bytes_))
    inside = jax.jit(lambda images: spread.content_of(normalise(images)))(bytes_)
    alone = [int(spread.content_of(given[i : i + 1])[0]) for i in range(6)]
    reverse = jax.jit(spread.content_of)(given[::-1])
    np.testing.assert_array_equal(inside, alone)
    np.testing.assert_array_equal(reverse[::-1], alone)
    # The last bits of a pixel, which no two programs share, change nothing.
    shaken = given * (1 + 1e-6 * np.random.default_rng(1).uniform(-1, 1, given.shape))
    np.testing.assert_array_equal(spread.content_of(jnp.asarray(shaken, jnp.float32)), alone)
    one_off = bytes_.copy()
    one_off[:, 3, 5, 1] ^= 1
    other = spread.content_of(normalise(one_off))
    assert len({*alone, *map(int, other)}) == 12


def test_content_of_images_that_are_not_finite_is_some_number():
    images = np.full((2, 8, 8, 3), np.nan, np.float32)
    images[1] = np.inf
    assert spread.content_of(jnp.asarray(images)).shape == (2,)


def test_draws_take_their_share_and_differ_between_layers_and_images():
    content = spread.content_of(normalise(pixels(64)))
    layers = np.stack([spread.draws(content, layer, 0.3, 196) for layer in range(3)])
    assert layers.mean() == pytest.approx(0.3, abs=0.01)
    for axis in (0, 1):
        alike = (layers == np.roll(layers, 1, axis)).mean()
        assert alike == pytest.approx(0.58, abs=0.02)  # of independent draws
    assert np.asarray(spread.draws(content, 0, 1.0, 9)).all()
    assert not np.asarray(spread.draws(content, 0, -0.2, 9)).any()


def test_draws_do_not_know_the_place_in_the_batch():
    content = spread.content_of(normalise(pixels()))
    together = spread.draws(content, 2, 0.5, 16)
    np.testing.assert_array_equal(spread.draws(content[::-1], 2, 0.5, 16)[::-1], together)
    alone = jax.jit(lambda one, layer: spread.draws(one, layer, 0.5, 16))(content[3:4], 2)
    np.testing.assert_array_equal(alone[0], together[3])


def test_flags_of_gathered_tokens_go_back_to_their_places():
    index = jnp.asarray([[0, 3, 5], [1, 2, 4]])
    flags = jnp.asarray([[True, False, True], [False, True, True]])
    found = spread.at_their_places(flags, index, 6)
    np.testing.assert_array_equal(np.argwhere(found), [[0, 0], [0, 5], [1, 2], [1, 4]])
