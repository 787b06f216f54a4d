"""Grids of any size: patches that do not tile an image, soft splits, and what is made finer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax.errors import UserError
from avit_jax.models import grid_resize
from avit_jax.models.patch_grid import grid_of, splits_of
from avit_jax.models.soft_split import SPLITS
from avit_jax.models.vit import ViTShape


@pytest.mark.parametrize(("size", "grid"), [(32, 4), (32, 5), (32, 7), (28, 6), (10, 6)])
def test_patches_that_do_not_tile_are_those_of_a_padded_convolution(size, grid):
    shape = ViTShape(image_size=size, patch_size=2, embed_dim=8, depth=1, num_heads=2)
    shape = shape.with_grid(grid)
    assert shape.grid == grid and shape.num_tokens == 1 + grid**2
    side = -(-size // grid)
    network = shape.build(nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (2, size, size, 3))
    kernel = network.patch_embed.kernel[...].reshape(side, side, 3, 8)
    expected = jax.lax.conv_general_dilated(
        images,
        kernel,
        (side, side),
        [shape.padding] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    assert sum(shape.padding) == side * grid - size
    assert np.ptp(shape.padding) <= 1
    np.testing.assert_allclose(
        network.patches(images, None), expected.reshape(2, grid**2, 8), atol=1e-5
    )


def test_published_soft_splits_are_found():
    assert splits_of(224, 7)[0] == (14, 8, 3)
    assert splits_of(224, 10)[0] == (11, 6, 5)
    assert splits_of(224, 14) == SPLITS


@pytest.mark.parametrize("size", [32, 64, 96, 128, 160, 224, 384])
def test_soft_splits_give_the_grid_that_is_asked_for(size):
    finest = size // 16
    for grid in {*range(2, finest - size // 64), finest - 1, finest} - {1}:
        splits = splits_of(size, grid)  # between these some have none
        assert grid_of(size, splits) == grid
        assert [split.size for split in splits[1:]] == [3, 3]  # as weights have them
    assert splits_of(size, finest) == SPLITS


def test_the_grid_next_to_the_finest_has_windows_as_the_finest():
    assert splits_of(224, 13) == (*SPLITS[:2], (3, 2, 0))


@pytest.mark.parametrize(("size", "grid", "near"), [(16, 9, 1), (384, 21, 20)])
def test_a_grid_without_soft_splits_is_refused_and_the_nearest_named(size, grid, near):
    with pytest.raises(UserError, match=f"to {grid} x {grid} tokens: write {near} instead"):
        splits_of(size, grid)


@pytest.mark.parametrize(("source", "target"), [(1, 2), (2, 3), (3, 8), (7, 10), (7, 14)])
def test_relations_are_resized_by_one_operator_on_both_sides(source, target):
    matrix = grid_resize.resize_matrix(source, target)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    whole = np.eye(2 + target**2, 2 + source**2)
    whole[2:, 2:] = np.kron(matrix, matrix)
    relations = np.random.default_rng(0).normal(size=(3, 2 + source**2, 2 + source**2))
    found = grid_resize.resize_relations(
        jnp.asarray(relations, jnp.float32), prefix=2, source=source, target=target
    )
    np.testing.assert_allclose(found, whole @ relations @ whole.T, atol=1e-5)
