"""Colours name layers: as many as there are, in order of brightness, told apart in grey."""

import numpy as np
import pytest

from avit_jax.viz import palette


@pytest.mark.parametrize("depth", [1, 2, 6, 12, 24])
def test_there_is_one_colour_per_layer_and_deeper_is_brighter_in_grey_too(depth):
    colours = palette.colours(depth)
    assert colours.shape == (depth, 3)
    grey = colours @ np.array([0.299, 0.587, 0.114])
    assert np.all(np.diff(grey) > 3)


def test_painting_looks_up_the_legend_and_leaves_zero_layers_black():
    painted = palette.paint(np.array([[1, 5], [0, 3]]), 5)
    assert painted.shape == (2, 2, 3)
    np.testing.assert_array_equal(painted[0], palette.colours(5)[[0, 4]])
    np.testing.assert_array_equal(painted[1], [[0, 0, 0], palette.colours(5)[2].tolist()])


def test_numbers_on_a_colour_can_be_read():
    def luminance(colour: str) -> float:
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in palette.colours(12):
        values = (palette.hexadecimal(colour), palette.ink_on(colour))
        low, high = sorted(map(luminance, values))
        assert (high + 0.05) / (low + 0.05) > 4.5, values
