"""The moving average, with and without its warm-up."""

import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.training.moving_average import followed


@pytest.mark.parametrize(
    ("warmup", "step", "kept"),
    [(False, 0, 0.9), (True, 0, 1 / 10), (True, 5, 6 / 15), (True, 79, 80 / 89), (True, 81, 0.9)],
)
def test_the_share_that_stays_grows_to_the_decay(warmup, step, kept):
    average, params = {"x": jnp.array([1.0])}, {"x": jnp.array([2.0])}
    found = followed(average, params, jnp.int32(step), 0.9, warmup)
    np.testing.assert_allclose(found["x"], kept * 1.0 + (1 - kept) * 2.0, rtol=1e-6)


def test_where_there_is_none_there_will_be_none():
    assert followed(None, {"x": jnp.zeros(1)}, jnp.int32(3), 0.0, True) is None
