"""The figure of one image has its map and the whole legend, and matrices of skipped parts."""

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import depth_figure, palette

GRID, LAYERS = 4, 5


class Noting:
    """Stands for a sheet and notes what is drawn, from the bottom up."""

    def __init__(self):
        self.boxes, self.texts = [], []

    def box(self, left, top, width, height, colour):
        self.boxes.insert(0, (top, colour))

    def words(self, text, left, top, **how):
        self.texts.insert(0, text)


@pytest.mark.parametrize("first", [0, 1])
def test_the_legend_names_every_layer_with_its_colour(first):
    sheet = Noting()
    depth_figure.legend(sheet, 0.0, LAYERS, first=first)
    counts = np.arange(first, LAYERS + 1)
    assert sheet.texts == [*map(str, counts), "layers"]
    tops, colours = zip(*sheet.boxes, strict=True)
    np.testing.assert_array_equal(colours, palette.paint(counts, LAYERS))
    assert list(tops) == sorted(tops, reverse=True)


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
