"""Figures and picture of depth maps, on maps whose cause is known."""

import json

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import depth_maps, palette

COUNT, SIZE, GRID = 12, 32, 8


def pixels(patches: np.ndarray) -> np.ndarray:
    """Grey images `[M, SIZE, SIZE, 3]` whose patches have the given values."""
    return np.kron(patches, np.ones((4, 4)))[..., None].repeat(3, -1).astype(np.uint8)


@pytest.fixture
def levels() -> np.ndarray:
    return np.random.default_rng(0).choice([0, 60, 120, 180, 240], (COUNT, GRID, GRID))


def test_maps_that_follow_brightness_say_so(levels):
    found = depth_maps.statistics(pixels(levels), levels // 60 + 1)
    assert found["brightness"]["correlation"] == pytest.approx(1.0, abs=1e-5)
    upper = levels > np.median(levels)
    assert found["brightness"]["mean_depth_upper_half"] == pytest.approx(
        (levels // 60 + 1)[upper].mean()
    )
    assert found["brightness"]["mean_depth_lower_half"] == pytest.approx(
        (levels // 60 + 1)[~upper].mean()
    )
    assert abs(found["edges"]["correlation"]) < 0.5
    assert found["position"]["variance_explained"] < 0.3
    assert "+1.00" in found["brightness"]["text"]


def test_dark_and_deep_is_a_correlation_of_minus_one(levels):
    found = depth_maps.statistics(pixels(levels), 5 - levels // 60)
    assert found["brightness"]["correlation"] == pytest.approx(-1.0, abs=1e-5)


def test_maps_that_follow_edges_say_so():
    generator = np.random.default_rng(1)
    striped = generator.random((COUNT, GRID, GRID)) < 0.4
    stripes = np.where(np.arange(SIZE) % 4 < 2, 200, 56)  # two columns bright, two dark: mean 128
    mask = np.kron(striped, np.ones((4, 4)))
    grey = np.where(mask, stripes, 128)
    images = np.repeat(grey[..., None], 3, -1).astype(np.uint8)
    found = depth_maps.statistics(images, np.where(striped, 6, 2))
    assert found["edges"]["correlation"] > 0.8
    assert found["edges"]["mean_depth_upper_half"] > found["edges"]["mean_depth_lower_half"]


def test_maps_that_position_alone_explains_say_so(levels):
    ring = np.add.outer(np.arange(GRID), np.arange(GRID)) // 3
    found = depth_maps.statistics(pixels(levels), np.tile(ring, (COUNT, 1, 1)))
    assert found["position"]["variance_explained"] == pytest.approx(1.0)
    assert "100%" in found["position"]["text"]
    assert abs(found["brightness"]["correlation"]) < 0.2


def test_neighbours_of_smooth_maps_differ_less_than_any_two_patches(levels):
    noise = depth_maps.statistics(pixels(levels), levels // 60 + 1)["neighbours"]
    assert noise["of_any_two"] == pytest.approx(1.0, abs=0.05)
    halves = np.tile(np.where(np.arange(GRID) < 4, 2, 8), (COUNT, GRID, 1))
    smooth = depth_maps.statistics(pixels(levels), halves)["neighbours"]
    # One of 14 steps to the right or down is one of 6 layers, and 32 of 63 other patches differ.
    assert smooth["difference"] == pytest.approx(6 / 14)
    assert smooth["of_any_two"] == pytest.approx((6 / 14) / (6 * 32 / 63))
    assert "differ by 0.43 layers" in smooth["text"]
    alike = np.broadcast_to(np.arange(COUNT)[:, None, None], levels.shape)
    assert depth_maps.statistics(pixels(levels), alike)["neighbours"]["of_any_two"] is None
    single = depth_maps.smoothness(np.arange(3).reshape(3, 1, 1))
    assert single == {"difference": None, "of_any_two": None, "text": "an image is one patch"}


def test_equal_depths_have_no_relation_to_anything(levels):
    found = depth_maps.statistics(pixels(levels), np.full((COUNT, GRID, GRID), 3))
    assert found["brightness"]["correlation"] is None
    assert found["edges"]["correlation"] is None
    assert found["position"]["variance_explained"] is None
    assert all(part["text"] == "all depths are equal" for part in found.values())


@pytest.mark.parametrize("grey", [0, 77, 123, 255])
def test_equally_bright_images_have_no_relation_and_are_not_said_to_be_equally_deep(grey, levels):
    images = np.full((COUNT, SIZE, SIZE, 3), grey, np.uint8)
    found = depth_maps.statistics(images, levels // 60 + 1)
    assert found["brightness"]["correlation"] is None
    assert found["edges"]["correlation"] is None
    assert "depths are equal" not in found["brightness"]["text"]


def test_mostly_white_pages_still_have_an_upper_and_a_lower_half(levels):
    ink = np.random.default_rng(2).random((COUNT, GRID, GRID)) < 0.2
    found = depth_maps.statistics(pixels(np.where(ink, 0, 255)), np.where(ink, 5, 2))
    assert found["brightness"]["correlation"] == pytest.approx(-1.0, abs=1e-5)
    assert found["brightness"]["mean_depth_upper_half"] == 2
    assert found["brightness"]["mean_depth_lower_half"] == 5


def test_figures_are_fit_for_json(levels):
    found = depth_maps.statistics(pixels(levels), levels // 60 + 1)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_spread_takes_turns_over_the_classes_in_the_order_of_the_split():
    labels = np.array([1, 1, 0, 1, 2, 0])
    assert depth_maps.spread(labels, 3) == [2, 0, 4]
    assert depth_maps.spread(labels, 5) == [2, 0, 4, 5, 1]


def test_spread_shows_what_there_is_where_there_are_too_few():
    assert sorted(depth_maps.spread(np.array([3, 3, 1]), 20)) == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 5, 7])
def test_the_picture_is_a_png_and_no_partial_file_is_left(count, tmp_path, levels):
    path = tmp_path / "depth_maps.png"
    path.write_text("an older picture")
    depth_maps.draw(
        pixels(levels)[:count],
        (levels // 60 + 1)[:count],
        [f"digit {i}" for i in range(count)],
        depth=6,
        path=path,
    )
    assert list(tmp_path.iterdir()) == [path]
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 50


def test_a_depth_has_the_same_colour_in_every_picture_and_later_layers_are_brighter(tmp_path):
    def areas(depths) -> list[tuple[int, ...]]:
        """Colours of large areas beside the black image and the white page, largest first."""
        depth_maps.draw(
            np.zeros((1, SIZE, SIZE, 3), np.uint8),
            np.asarray(depths).reshape(1, 2, 2),
            ["zero"],
            depth=3,
            path=tmp_path / "picture.png",
        )
        with Image.open(tmp_path / "picture.png") as picture:
            above_legend = (0, 0, picture.width, picture.height - 90)
            found = np.asarray(picture.convert("RGB").crop(above_legend)).reshape(-1, 3)
        values, counts = np.unique(found, axis=0, return_counts=True)
        order = [place for place in np.argsort(-counts, kind="stable") if counts[place] > 2000]
        colours = [tuple(values[place].tolist()) for place in order]
        return [colour for colour in colours if sum(colour) not in (0, 3 * 255)]

    mixed = areas([2, 2, 1, 3])
    assert len(mixed) == 3
    (middle,) = areas([2, 2, 2, 2])
    assert middle == mixed[0]
    (early,), (late,) = areas([1, 1, 1, 1]), areas([3, 3, 3, 3])
    assert {early, late} == set(mixed[1:])
    assert sum(early) < sum(middle) < sum(late)
    assert [early, middle, late] == [tuple(colour) for colour in palette.colours(3).tolist()]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("seven", None), "seven"),
        (("1", "7"), "1, taken for 7"),
        (("garbage truck", "chain saw"), "garbage truck, taken for chain saw"),
        (("English springer", "cassette player"), "English spr…, taken for cassette pl…"),
        (("a" * 50, None), "a" * 35 + "…"),
    ],
)
def test_a_title_is_no_wider_than_image_and_map(names, shown):
    assert depth_maps.title(*names) == shown
    assert len(shown) <= depth_maps.LONGEST


def test_patches_that_no_layer_computed_are_darker_than_all_others(tmp_path):
    for name, depths in (("none", [0, 1, 3, 3]), ("some", [1, 1, 3, 3])):
        depth_maps.draw(
            np.full((1, SIZE, SIZE, 3), 128, np.uint8),
            np.array(depths).reshape(1, 2, 2),
            ["zero"],
            depth=3,
            path=tmp_path / f"{name}.png",
        )
    colours = []
    for name in ("none", "some"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            found = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        values, counts = np.unique(found, axis=0, return_counts=True)
        colours.append({tuple(value) for value in values[counts > 1500].tolist()})
    assert len(colours[0]) == len(colours[1]) + 1
