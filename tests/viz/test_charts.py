"""Charts are pictures on white for paper and on nothing for the page, for few and many classes."""

import io

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import (
    chart_choice,
    depth_charts,
    exit_charts,
    image_statistics,
    palette,
    usage_charts,
)
from avit_jax.viz.chart_style import DARK, LIGHT, PAPER


@pytest.fixture
def summary(make_looked):
    """Of four images, with heads and halves; the last image's class is unknown."""
    rows = []
    for seed in range(4):
        ran = np.random.default_rng(seed).random((5, 5)) < 0.6
        label = None if seed == 3 else seed % 2
        looked = make_looked(
            seed=seed,
            label=label,
            confidence=0.2 * seed,
            heads=ran[:, :3],
            halves=ran[:, 3:],
            exit=seed % 2,
            exit_answers=np.array([0, seed % 2]),
            exit_gmacs=np.array([1.0, 1 + seed]),
            exit_maps=(np.ones((2, 2), int), np.ones((4, 4), int)),
            exit_layers=(2, 3),
        )
        rows.append(image_statistics.row(looked))
    names = ("$ant_", "a name that is far too long for the chart")
    return image_statistics.summarise(rows, names, gmacs_dense=6.0)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGBA"))


@pytest.mark.parametrize(
    "chart",
    [
        depth_charts.depth_histogram,
        depth_charts.live_tokens,
        depth_charts.class_depth,
        usage_charts.kept_per_layer,
        usage_charts.class_kept,
        usage_charts.cost_and_difficulty,
        exit_charts.stopped,
        exit_charts.accuracy,
    ],
)
def test_paper_is_white_and_the_page_shines_through_elsewhere(chart, summary):
    assert pixels(chart(summary, PAPER))[0, 0].tolist() == [255, 255, 255, 255]
    light, dark = (pixels(chart(summary, theme)) for theme in (LIGHT, DARK))
    assert light[0, 0, 3] == dark[0, 0, 3] == 0
    assert dark.shape == light.shape
    inks = [(52, 58, 70, 255), (211, 216, 226, 255)]
    for image, ink, other in ((light, *inks), (dark, *inks[::-1])):
        assert (image == ink).all(-1).sum() > 50
        assert not (image == other).all(-1).any()


def test_the_histogram_has_the_colours_of_the_legend(summary):
    colours = set(map(tuple, pixels(depth_charts.depth_histogram(summary, PAPER)).reshape(-1, 4)))
    present = [share > 0.01 for share in summary["depth_histogram"]]
    for colour, shown in zip(palette.colours(5).tolist(), present, strict=True):
        assert ((*colour, 255) in colours) == shown


def test_of_a_thousand_classes_only_the_ends_are_drawn(summary):
    one = {"images": 1, "kept": {"tokens": 0.5, "heads": 0.4, "halves": 1.0}}
    classes = [
        one | {"name": f"c{i}", "mean_depth": i / 250, "gmacs": i / 200} for i in range(1000)
    ]
    for chart in (depth_charts.class_depth, usage_charts.class_kept):
        many = pixels(chart(summary | {"classes": classes}, LIGHT))
        few = pixels(chart(summary | {"classes": classes[:24]}, LIGHT))
        assert many.shape == few.shape


def test_models_of_many_layers_keep_their_axis_readable(make_looked):
    live = np.ones((40, 17), bool)
    looked = make_looked(live=live, depth=np.full(17, 40), gmacs_until=np.ones(40))
    summary = image_statistics.summarise(
        [image_statistics.row(looked)], ("ant", "bee"), gmacs_dense=6.0
    )
    assert pixels(depth_charts.depth_histogram(summary, LIGHT)).shape[0] > 300
    assert pixels(depth_charts.live_tokens(summary, LIGHT)).shape[0] > 300


def test_tokens_that_no_layer_computed_get_a_black_bar(make_looked):
    row = image_statistics.row(make_looked(depth=np.array([5] * 8 + [0] * 9)))
    summary = image_statistics.summarise([row], ("ant", "bee"), gmacs_dense=6.0)
    assert sum(summary["depth_histogram"]) == pytest.approx(8 / 17)
    black = (pixels(depth_charts.depth_histogram(summary, PAPER)) == (0, 0, 0, 255)).all(-1)
    assert black.sum() > 1000


def test_charts_of_parts_appear_where_a_method_chooses_among_them(summary, make_looked):
    everything = {one.name: one for one in chart_choice.chosen(summary)}
    assert {"kept_per_layer", "class_kept"} <= everything.keys()
    assert "heads" in everything["kept_per_layer"].words
    plain = image_statistics.summarise(
        [image_statistics.row(make_looked())], ("ant", "bee"), gmacs_dense=6.0
    )
    names = [one.name for one in chart_choice.chosen(plain)]
    assert names == ["depth_histogram", "live_tokens", "class_depth", "cost_and_difficulty"]
    unknown = [image_statistics.row(make_looked(label=None))]
    without = image_statistics.summarise(unknown, ("ant", "bee"), gmacs_dense=6.0)
    assert not [one for one in chart_choice.chosen(without) if "class" in one.name]


def test_what_exits_know_and_where_images_stop_is_counted(summary):
    exits = summary["exits"]
    np.testing.assert_allclose(exits["stopped"], [0.5, 0.5])
    np.testing.assert_allclose(exits["top1"], [2 / 3, 1.0])  # of the three with a class
    np.testing.assert_allclose(exits["gmacs"], [1.0, 2.5])
    stopped = {one["name"]: one["stopped"].tolist() for one in summary["classes"]}
    assert list(stopped.values()).count([0.0, 1.0]) == 1
    assert stopped["$ant_"] == [1.0, 0.0]
