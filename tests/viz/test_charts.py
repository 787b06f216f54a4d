"""Charts are pictures on white for paper and on nothing for the page, for few and many classes."""

import io

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import charts, figures, palette


@pytest.fixture
def summary(make_looked):
    rows = [figures.row(make_looked(seed=seed, label=seed % 2)) for seed in range(4)]
    return figures.summarise(rows, ("$ant_", "a name that is far too long for the chart"))


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGBA"))


@pytest.mark.parametrize("chart", [charts.depth_histogram, charts.live_tokens, charts.class_depth])
def test_paper_is_white_and_the_page_shines_through_elsewhere(chart, summary):
    assert pixels(chart(summary, charts.PAPER))[0, 0].tolist() == [255, 255, 255, 255]
    light, dark = (pixels(chart(summary, theme)) for theme in (charts.LIGHT, charts.DARK))
    assert light[0, 0, 3] == dark[0, 0, 3] == 0
    assert dark.shape == light.shape
    inks = [(52, 58, 70, 255), (211, 216, 226, 255)]
    for image, ink, other in ((light, *inks), (dark, *inks[::-1])):
        assert (image == ink).all(-1).sum() > 50
        assert not (image == other).all(-1).any()


def test_the_histogram_has_the_colours_of_the_legend(summary):
    colours = set(map(tuple, pixels(charts.depth_histogram(summary, charts.PAPER)).reshape(-1, 4)))
    present = [share > 0.01 for share in summary["depth_histogram"]]
    for colour, shown in zip(palette.colours(5).tolist(), present, strict=True):
        assert ((*colour, 255) in colours) == shown


def test_of_a_thousand_classes_only_the_ends_are_drawn(summary):
    classes = [{"name": f"c{i}", "images": 1, "mean_depth": i / 250} for i in range(1000)]
    many = pixels(charts.class_depth(summary | {"classes": classes}, charts.LIGHT))
    few = pixels(charts.class_depth(summary | {"classes": classes[:24]}, charts.LIGHT))
    assert many.shape == few.shape


def test_models_of_many_layers_keep_their_axis_readable(make_looked):
    live = np.ones((40, 17), bool)
    looked = make_looked(live=live, depth=np.full(17, 40), gmacs_until=np.ones(40))
    summary = figures.summarise([figures.row(looked)], ("ant", "bee"))
    assert pixels(charts.depth_histogram(summary, charts.LIGHT)).shape[0] > 300
    assert pixels(charts.live_tokens(summary, charts.LIGHT)).shape[0] > 300
