"""Images by the exit that they left at: who is shown, in which order, and with which maps."""

import io

import numpy as np
import pytest
from PIL import Image

from avit_jax.viz import depth_figure, exit_gallery, exit_maps, html_gallery, palette
from tests.viz.test_html_report import Page

NAMES = ("ant", "<bee>")
RESTING = np.uint8(np.eye(2) + 1)  # a map of two patches that rested after layer 1 of 2


@pytest.fixture
def left_at(make_looked):
    """Builds an image that left at an exit of two with 2 x 2 and 4 x 4 patches."""

    def make(exit_index: int, confidence: float, **changed):
        ran = np.full((4, 4), 2 * exit_index, np.int32)
        values = {"exit_maps": (np.full((2, 2), 2), ran), "exit_layers": (2, 2)} | changed
        return make_looked(
            exit=exit_index, confidence=confidence, exit_answers=np.array([1, 1]), **values
        )

    return make


def gallery_of(*images) -> exit_gallery.Gallery:
    gallery = exit_gallery.Gallery()
    for order, looked in enumerate(images):
        gallery.add(looked, order)
    return gallery


def test_rows_hold_the_surest_and_the_least_sure_of_each_exit_in_order(left_at):
    confidences = np.random.default_rng(0).permutation(30) / 100
    images = [left_at(0, confidence) for confidence in confidences] + [left_at(1, 0.5)]
    gallery = gallery_of(*images)
    first, second = gallery.rows
    assert [one.looked.confidence for one in first] == [
        *np.arange(29, 24, -1) / 100,
        *np.arange(4, -1, -1) / 100,
    ]
    for placed in first:
        assert placed.looked.confidence == confidences[placed.order]
        assert placed.looked.photograph.shape == (exit_gallery.SIDE, exit_gallery.SIDE, 3)
    assert [one.order for one in second] == [30]
    assert gallery.counts == [30, 1]
    assert gallery.about(0) == "30 of 31 images (97%), the 5 surest and the 5 least sure"
    assert gallery.about(1) == "1 of 31 images (3%)"


def test_models_with_one_exit_have_no_gallery(make_looked):
    gallery = gallery_of(make_looked(), make_looked())
    assert gallery.rows == []
    assert html_gallery.section(gallery, NAMES) == ""


def test_an_exit_that_nobody_left_by_keeps_its_row(left_at):
    gallery = gallery_of(left_at(1, 0.5))
    assert [len(row) for row in gallery.rows] == [0, 1]
    assert gallery.about(0) == "0 of 1 image (0%)"
    with Image.open(io.BytesIO(exit_gallery.draw(gallery, NAMES))) as picture:
        assert picture.format == "PNG"


def test_the_figure_has_maps_exactly_where_patches_rested_inside_exits(left_at):
    resting = left_at(1, 0.9, exit_maps=(RESTING, np.full((4, 4), 2)))
    shown = {}
    for name, looked in (("resting", resting), ("whole", left_at(1, 0.9))):
        with Image.open(io.BytesIO(exit_gallery.draw(gallery_of(looked), NAMES))) as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        shown[name] = set(map(tuple, pixels.tolist()))
    colours = set(map(tuple, palette.colours(2).tolist()))
    assert colours <= shown["resting"]
    assert not colours & shown["whole"]


def test_an_exit_that_ran_in_part_halted_and_one_that_did_not_run_did_not(left_at):
    assert not exit_gallery.halted(left_at(0, 0.5))
    assert not exit_gallery.halted(left_at(1, 0.5))
    assert exit_gallery.halted(left_at(0, 0.5, exit_maps=(RESTING, np.zeros((4, 4), int))))


@pytest.mark.parametrize("grid", [2, 3])  # the photograph has 32 pixels: 3 patches do not tile it
def test_a_map_has_the_patches_of_its_exit_in_the_colours_of_layers(grid, left_at):
    grey = np.full((32, 32, 3), 90, np.uint8)
    depths = np.arange(grid**2).reshape(grid, grid) % 2 + 1
    looked = left_at(0, 0.5, photograph=grey, exit_maps=(depths, np.zeros((4, 4), int)))
    painted = exit_maps.map_over(looked, 0, 60)
    assert painted.shape == (60, 60, 3)
    centres = painted[30 // grid :: 60 // grid, 30 // grid :: 60 // grid]
    np.testing.assert_array_equal(centres, palette.paint(depths, 2))
    assert exit_maps.caption(looked, 0) == f"exit 1: {depths.mean():.1f} of 2 layers"
    assert np.unique(exit_maps.map_over(looked, 1, 60)).tolist() == [exit_maps.NOT_REACHED]
    assert exit_maps.caption(looked, 1) == "exit 2: not reached"


def test_the_figure_of_an_image_has_a_map_for_each_exit(left_at, make_looked, tmp_path):
    several, one = tmp_path / "several.png", tmp_path / "one.png"
    depth_figure.write(left_at(0, 0.5), several, title="two exits", grid=4)
    depth_figure.write(make_looked(), one, title="one exit", grid=4)
    with Image.open(several) as wide, Image.open(one) as narrow:
        assert wide.width > narrow.width + 500


def test_the_page_links_each_photograph_to_its_card_and_marks_wrong_answers(left_at):
    wrong = left_at(1, 0.9, label=0, name="<b>.png", exit_maps=(RESTING, np.full((4, 4), 2)))
    found = Page(html_gallery.section(gallery_of(left_at(0, 0.5), wrong), NAMES))
    assert [a["href"] for a in found.all("a")] == ["#image0", "#image1"]
    assert len(found.all("img")) == (1 + 1) + (1 + 2)
    assert len(found.all("b", class_="wrong")) == 1
    assert "<bee>, is ant" in found.text
    assert found.all("img", alt="<b>.png")
    assert "Exit 1 1 of 2 images (50%)" in found.text
