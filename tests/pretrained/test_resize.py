"""Positions follow the number of patches."""

import numpy as np
import pytest

from avit_jax.pretrained.resize import resize_positions
from tests.pretrained.files import FIXTURES


@pytest.mark.parametrize("grid", [3, 6, 7])
@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 2])
def test_positions_are_interpolated_as_torch_does(grid, num_prefix_tokens):
    """The fixture is torch's own antialiased bicubic interpolation."""
    with np.load(FIXTURES / "positions.npz") as arrays:
        table, wanted = arrays["table"], arrays[f"grid{grid}"]
    prefix = np.arange(5 * num_prefix_tokens, dtype=np.float32).reshape(1, num_prefix_tokens, 5)
    resized = resize_positions(
        np.concatenate([prefix, table], axis=1), grid=grid, num_prefix_tokens=num_prefix_tokens
    )
    assert resized.shape == (1, num_prefix_tokens + grid**2, 5)
    np.testing.assert_array_equal(resized[:, :num_prefix_tokens], prefix)
    np.testing.assert_allclose(resized[:, num_prefix_tokens:], wanted, rtol=0, atol=2e-6)


def test_a_table_that_fits_is_not_touched():
    table = np.zeros((1, 17, 3), np.float16)
    assert resize_positions(table, grid=4, num_prefix_tokens=1) is table
