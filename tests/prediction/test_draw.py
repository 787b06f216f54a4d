"""Images beside their depth maps, in one line of Python."""

import numpy as np
import pytest

import avit_jax
from avit_jax.data.digits import DigitsSource
from avit_jax.errors import UserError
from avit_jax.viz import depth_maps

pytestmark = pytest.mark.usefixtures("compiled_once")
IMAGES = [DigitsSource(split="validation")[index].image for index in range(2)]


@pytest.fixture(scope="module")
def loaded(run):
    return avit_jax.load_run(run.workdir, execution="masked")


def test_images_are_drawn_with_their_own_depths_and_labels(loaded, monkeypatch):
    drawn = {}

    def figure_of(images, maps, titles, *, depth):
        drawn.update(images=images, maps=maps, titles=titles, depth=depth)
        return original(images, maps, titles, depth=depth)

    original = depth_maps.figure_of
    monkeypatch.setattr(depth_maps, "figure_of", figure_of)
    picture = loaded.draw(image for image in IMAGES)  # which can be read only once
    answers = loaded.predict(IMAGES)
    assert drawn["images"].shape == (2, 32, 32, 3)
    np.testing.assert_array_equal(drawn["maps"], [answer.depth_map for answer in answers])
    assert [title.split()[0] for title in drawn["titles"]] == [one.label for one in answers]
    assert drawn["depth"] == loaded.model.shape.depth
    assert picture._repr_png_()  # what a notebook shows
    assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_too_many_images_none_and_unreadable_ones_are_refused(loaded, tmp_path):
    with pytest.raises(UserError, match="there are 101 images to draw: write 1 to 100"):
        loaded.draw(np.zeros((101, 32, 32, 3), np.uint8))
    with pytest.raises(UserError, match="there are 0 images"):
        loaded.draw([])
    (tmp_path / "0.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"0\.jpg .* leave it out"):
        loaded.draw([IMAGES[0], tmp_path])
