"""Off, then a linear rise, then fully on."""

import jax
import numpy as np
import pytest

from avit_jax.errors import UserError
from avit_jax.methods import schedule


def test_it_is_off_then_rises_and_stays_on():
    progress = np.array([0.0, 0.2, 0.3, 0.4, 0.6, 0.7, 1.0])
    found = jax.vmap(lambda p: schedule.strength(p, dense_until=0.2, ramp=0.4))(progress)
    np.testing.assert_allclose(found, [0, 0, 0.25, 0.5, 1, 1, 1], atol=1e-6)


def test_without_a_rise_it_is_a_step():
    found = [schedule.strength(p, dense_until=0.5, ramp=0.0) for p in (0.0, 0.5, 0.51, 1.0)]
    np.testing.assert_array_equal(found, [0, 0, 1, 1])


def test_without_settings_it_is_always_on():
    assert float(schedule.strength(0.0, dense_until=0.0, ramp=0.0)) == 1.0


@pytest.mark.parametrize(("dense_until", "rise"), [(-0.1, 0.0), (0.5, 0.6), (1.1, 0.0), (0.0, -1)])
def test_shares_that_cannot_be_are_refused(dense_until, rise):
    with pytest.raises(UserError, match="are shares of the training"):
        schedule.check(dense_until=dense_until, ramp=rise)
