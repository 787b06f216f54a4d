"""The picture of where the time went, also of runs in which little did."""

import pytest
from PIL import Image

from avit_jax.runtime import goodput
from avit_jax.runtime.training_clock import Effort
from avit_jax.viz import goodput as picture


@pytest.mark.parametrize("effort", [Effort(), Effort(seconds=9e5, timed_seconds=8e5, lost=5e4)])
def test_a_bar_is_drawn_of_any_run(effort, tmp_path):
    picture.write(goodput.parts(effort), tmp_path / "goodput.png")
    with Image.open(tmp_path / "goodput.png") as image:
        assert image.width > 1000
        assert len(image.getcolors(1 << 20)) > 10


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 s"), (7.25, "7.2 s"), (600.0, "10 min"), (9e4, "25.0 h")]
)
def test_times_have_the_unit_that_suits_them(seconds, text):
    assert picture._time(seconds) == text
