"""The search for the largest batch, among programs of known size."""

import pytest

from avit_jax.forecast.largest_batch import largest_batch

FIXED, EACH = 1000, 10


def grows(size, *, refused_above=None):
    if refused_above is not None and size > refused_above:
        return None
    return FIXED + EACH * size


def search(start, memory, unit=8, refused_above=None):
    asked = []

    def needs(size):
        asked.append(size)
        return grows(size, refused_above=refused_above)

    known = {start: grows(start, refused_above=refused_above)}
    found = largest_batch(needs, known=known, unit=unit, memory=memory)
    return found, asked


@pytest.mark.parametrize("start", [8, 64, 800])
@pytest.mark.parametrize("refuses", [True, False])
def test_it_fits_is_near_the_limit_and_takes_few_programs(start, refuses):
    limit = 720  # images that need 8,200 bytes
    found, asked = search(start, 8200, refused_above=limit if refuses else None)
    assert found.batch_size % 8 == 0
    assert 0.7 * limit <= found.batch_size <= limit
    assert found.memory == grows(found.batch_size) <= 8200
    assert len(asked) <= 5
    assert found.tried[found.batch_size] == found.memory


def test_where_nothing_fits_nothing_is_named():
    found, asked = search(64, 500)
    assert found.batch_size == 0 and found.memory == 0
    assert min(asked) == 8


def test_the_smallest_batch_can_be_the_largest():
    found, _ = search(8, FIXED + 8 * EACH)
    assert found.batch_size == 8
