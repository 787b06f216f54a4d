"""The map over the photograph keeps the legend's colours, and its figure has the whole legend."""

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import depth_figure, palette

GRID, LAYERS = 4, 5


def test_the_mean_colour_of_a_patch_is_the_legends_however_dark_the_photograph(make_looked):
    looked = make_looked()
    faint = (np.linspace(0, 200, 4).repeat(8)[:, None, None] + looked.photograph / 8).astype(
        np.uint8
    )
    depths = depth_figure.patch_depths(looked, GRID).clip(2, 4)  # the ends of the scale would clip
    blended = depth_figure.blend(faint, depths, LAYERS)
    means = blended.reshape(GRID, 8, GRID, 8, 3).mean((1, 3))
    np.testing.assert_allclose(means, palette.paint(depths, LAYERS), atol=1.0)


def test_the_photograph_shows_through_inside_the_patches(make_looked):
    looked = make_looked()
    blended = depth_figure.blend(looked.photograph, np.full((GRID, GRID), 3), LAYERS)
    grey = looked.photograph @ np.array([0.299, 0.587, 0.114])
    seen = blended @ np.array([0.299, 0.587, 0.114])
    inside = [values.reshape(GRID, 8, GRID, 8) for values in (grey, seen)]
    inside = [(values - values.mean((1, 3), keepdims=True)).ravel() for values in inside]
    assert np.corrcoef(*inside)[0, 1] > 0.95


def test_the_class_token_is_not_on_the_map(make_looked):
    depth = np.array([5, *range(16)]) % 5 + 1
    depths = depth_figure.patch_depths(make_looked(depth=depth), GRID)
    np.testing.assert_array_equal(depths.ravel(), depth[1:])


def test_the_legend_names_every_layer_with_its_colour():
    from matplotlib.figure import Figure

    axis = Figure().add_subplot()
    depth_figure.legend(axis, LAYERS)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1", "2", "3", "4", "5"]
    (boxes,) = axis.images
    np.testing.assert_array_equal(np.asarray(boxes.get_array())[:, 0], palette.colours(LAYERS))


def colours_in(path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.info["dpi"][0] == pytest.approx(300, abs=1)
        return set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))


def test_the_figure_holds_all_colours_of_the_legend(make_looked, tmp_path):
    path = tmp_path / "figure.png"
    depth_figure.write(make_looked(), path, title="a $title$ with \x07 and _x_", grid=GRID)
    assert colours_in(path) >= set(map(tuple, palette.colours(LAYERS).tolist()))


def test_heads_and_halves_that_did_not_run_get_a_matrix_beside_the_map(make_looked, tmp_path):
    plain, parts = tmp_path / "plain.png", tmp_path / "parts.png"
    heads = np.random.default_rng(1).random((LAYERS, 3)) < 0.5
    halves = np.ones((LAYERS, 2), bool)
    looked = make_looked(heads=heads, halves=halves)
    assert [name for name, _ in depth_figure.used_parts(looked)] == ["heads", "halves"]
    depth_figure.write(looked, parts, title="parts", grid=GRID)
    depth_figure.write(make_looked(), plain, title="plain", grid=GRID)
    with Image.open(parts) as wide, Image.open(plain) as narrow:
        assert wide.width > narrow.width + 200
    assert {(52, 58, 70), (226, 229, 235)} <= colours_in(parts)
