"""One image, block by block: photographs with skipped patches, squares for heads and halves."""

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import usage_figure
from avit_jax.viz.depth_figure import OFF, ON

GRID, LAYERS = 4, 5


def drawn(looked, path) -> np.ndarray:
    usage_figure.write(looked, path, title="a $title$ with \x07", grid=GRID)
    with Image.open(path) as picture:
        assert picture.info["dpi"][0] == pytest.approx(300, abs=1)
        return np.asarray(picture.convert("RGB"))


def area(pixels: np.ndarray, colour) -> int:
    return int((pixels == np.uint8(colour)).all(-1).sum())


def test_squares_are_filled_as_often_as_parts_ran(make_looked, tmp_path):
    heads = np.random.default_rng(1).random((LAYERS, 3)) < 0.5
    halves = np.ones((LAYERS, 2), bool)
    pixels = drawn(make_looked(heads=heads, halves=halves), tmp_path / "parts.png")
    ran = heads.sum() + halves.sum()
    share = area(pixels, ON) / (area(pixels, ON) + area(pixels, OFF))
    assert share == pytest.approx(ran / (LAYERS * 5), rel=0.02)


def test_without_heads_and_halves_the_photographs_stand_alone(make_looked, tmp_path):
    plain = drawn(make_looked(), tmp_path / "plain.png")
    halves = drawn(make_looked(halves=np.ones((LAYERS, 2), bool)), tmp_path / "halves.png")
    assert area(plain, ON) == 0
    assert plain.shape[0] < halves.shape[0]
    assert plain.shape[1] == halves.shape[1]


def test_photographs_show_their_computed_patches_as_they_are(make_looked, tmp_path):
    live = np.zeros((LAYERS, 1 + GRID**2), bool)
    live[:, 0] = True
    live[1, 1:5] = live[3, 1:9] = True
    photograph = np.full((32, 32, 3), (250, 20, 30), np.uint8)
    pixels = drawn(make_looked(live=live, photograph=photograph), tmp_path / "blocks.png")
    pure = (pixels == np.uint8((250, 20, 30))).all(-1)
    columns = np.flatnonzero(pure.any(0))
    assert np.count_nonzero(np.diff(columns) > 1) == 1  # two photographs, apart
    first, second = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert pure[:, second].sum() == pytest.approx(2 * pure[:, first].sum(), rel=0.05)


def test_many_layers_make_the_figure_wider_rather_than_too_small(make_looked, tmp_path):
    looked = make_looked(live=np.ones((40, 17), bool), depth=np.full(17, 40))
    pixels = drawn(looked, tmp_path / "many.png")
    assert pixels.shape[1] > 40 * 0.4 * 300
