"""Packed rows hold exactly the live tokens, in order, wherever they came from."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.execution.packing import moved_rows, pack, unpack

IMAGES, TOKENS = 3, 7
CAPACITY = IMAGES * TOKENS + 5
patterns = st.lists(st.booleans(), min_size=IMAGES * TOKENS, max_size=IMAGES * TOKENS)


def mask(pattern):
    return np.array(pattern).reshape(IMAGES, TOKENS)


@settings(deadline=None)
@given(patterns, patterns)
def test_repacking_keeps_the_tokens_that_are_still_live_in_order(first, second):
    before, after = mask(first), mask(first) & mask(second)
    names = np.arange(IMAGES * TOKENS).reshape(IMAGES, TOKENS)
    rows = np.full(CAPACITY, -1)
    rows[: before.sum()] = names[before]
    moved = moved_rows(pack(jnp.array(after)), pack(jnp.array(before)), CAPACITY)
    source, positions = map(np.asarray, moved)
    np.testing.assert_array_equal(rows[source][: after.sum()], names[after])
    np.testing.assert_array_equal(positions[: after.sum()], np.nonzero(after)[1])
    # Rows never move backwards, which is what lets a buffer be repacked in place.
    live = np.arange(after.sum())
    assert (source[live] >= live).all()


@settings(deadline=None)
@given(patterns)
def test_unpacking_puts_values_back_and_zeros_elsewhere(pattern):
    live = mask(pattern)
    packing = pack(jnp.array(live))
    values = np.full(CAPACITY, 99.0, np.float32)
    values[: live.sum()] = 1 + np.arange(live.sum())
    expected = np.zeros((IMAGES, TOKENS), np.float32)
    expected[live] = values[: live.sum()]
    np.testing.assert_array_equal(unpack(jnp.array(values), packing), expected)
    assert packing.total == live.sum()
    np.testing.assert_array_equal(packing.counts, live.sum(1))
