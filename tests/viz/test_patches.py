"""Values of tokens land on their patches, and depth maps keep the colours of the legend."""

import numpy as np

from avit_jax.viz import palette, patches

GRID, LAYERS = 4, 5


def test_the_mean_colour_of_a_patch_is_the_legends_however_dark_the_photograph(make_looked):
    looked = make_looked()
    faint = (np.linspace(0, 200, 4).repeat(8)[:, None, None] + looked.photograph / 8).astype(
        np.uint8
    )
    depths = patches.on_grid(looked.depth, GRID).clip(2, 4)  # the ends of the scale would clip
    blended = patches.depth_over(faint, depths, LAYERS)
    means = blended.reshape(GRID, 8, GRID, 8, 3).mean((1, 3))
    np.testing.assert_allclose(means, palette.paint(depths, LAYERS), atol=1.0)


def test_the_photograph_shows_through_inside_the_patches(make_looked):
    looked = make_looked()
    blended = patches.depth_over(looked.photograph, np.full((GRID, GRID), 3), LAYERS)
    grey = looked.photograph @ patches.LUMINANCE
    seen = blended @ patches.LUMINANCE
    inside = [values.reshape(GRID, 8, GRID, 8) for values in (grey, seen)]
    inside = [(values - values.mean((1, 3), keepdims=True)).ravel() for values in inside]
    assert np.corrcoef(*inside)[0, 1] > 0.95


def test_the_class_token_is_not_on_the_map():
    depth = np.array([5, *range(16)]) % 5 + 1
    depths = patches.on_grid(depth, GRID)
    np.testing.assert_array_equal(depths.ravel(), depth[1:])


def test_values_of_every_layer_keep_their_leading_axis():
    live = np.arange(LAYERS * 17).reshape(LAYERS, 17)
    np.testing.assert_array_equal(patches.on_grid(live, GRID)[2].ravel(), live[2, 1:])


def test_a_picture_has_whole_pixels_in_every_patch_and_is_as_large_as_allowed():
    assert (patches.side_near(336, 14), patches.side_near(336, 24)) == (336, 336)
    assert (patches.side_near(100, 24), patches.side_near(10, 24)) == (96, 24)
