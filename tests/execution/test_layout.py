"""Rows that move between layouts arrive at their tokens, and so do their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.execution import layout as layouts
from avit_jax.execution.packing import pack
from avit_jax.models.image_rows import ALIGN

BATCH, TOKENS = 3, 5


def lives(text):
    return jnp.asarray(np.array(list(text), int).reshape(BATCH, TOKENS) > 0)


bits = st.text("01", min_size=BATCH * TOKENS, max_size=BATCH * TOKENS)
VALUES = jnp.arange(1.0, 1 + BATCH * TOKENS * 2).reshape(BATCH, TOKENS, 2)


@settings(max_examples=15, deadline=None)
@given(bits, st.integers(1, BATCH * TOKENS), st.integers(1, TOKENS + 2))
def test_tokens_come_back_from_any_layout_or_as_nothing(text, capacity, length):
    live = lives(text)
    everything = layouts.every_token(BATCH, TOKENS)
    for layout in (layouts.packed(pack(live), capacity), layouts.square(live, length)):
        rows = layouts.moved(VALUES.reshape(-1, 2), everything, layout)
        np.testing.assert_array_equal(rows, layouts.as_rows(VALUES, layout))
        assert not np.any(np.asarray(rows)[~np.asarray(layout.exists)])
        expected = np.where(layout.held[:, :, None], VALUES, 0)
        np.testing.assert_array_equal(layouts.as_tokens(rows, layout), expected)
        np.testing.assert_array_equal(layouts.front_tokens(rows, layout, 2), expected[:, :2])
        assert np.all(np.asarray(layout.held) <= np.asarray(live))
        assert layout.exists.sum() == layout.held.sum()


@settings(max_examples=6, deadline=None)
@given(bits, st.integers(1, BATCH))
def test_aligned_images_begin_with_a_tile_and_hold_the_same_tokens(text, tiles):
    live = lives(text)
    everything = layouts.every_token(BATCH, TOKENS, aligned=True)
    packing = pack(live, align=ALIGN)
    packed = layouts.packed(packing, tiles * ALIGN, aligned=True)
    for layout in (everything, packed):
        starts, lengths = layout.aligned
        assert not np.any(np.asarray(starts) % ALIGN)
        row = np.arange(layout.rows)[:, None]
        ours = ((starts <= row) & (row < starts + lengths)).any(1)
        np.testing.assert_array_equal(layout.exists, ours)
        rows = layouts.as_rows(VALUES, layout)
        expected = np.where(layout.held[:, :, None], VALUES, 0)
        np.testing.assert_array_equal(layouts.as_tokens(rows, layout), expected)
        np.testing.assert_array_equal(layouts.as_tokens(rows[:, 0], layout), expected[:, :, 0])
        np.testing.assert_array_equal(layouts.front_tokens(rows, layout, 2), expected[:, :2])
        np.testing.assert_array_equal(
            layouts.holding(live & layout.held, layout),
            layouts.as_rows((live & layout.held)[:, :, None].astype(int), layout)[:, 0] > 0,
        )
    np.testing.assert_array_equal(
        layouts.whole_rows(VALUES, everything), layouts.as_rows(VALUES, everything)
    )
    if packing.total <= packed.rows:
        np.testing.assert_array_equal(packed.held, live)


def test_rows_of_aligned_images_move_as_others_do():
    live = lives("110100111000001")
    before = layouts.every_token(BATCH, TOKENS, aligned=True)
    after = layouts.packed(pack(live, align=ALIGN), BATCH * ALIGN, aligned=True)
    again = layouts.packed(pack(live & lives("100100000000001"), align=ALIGN), 48, aligned=True)
    rows = layouts.as_rows(VALUES, before)
    for first, second in ((before, after), (after, again)):
        rows = jax.jit(layouts.moved)(rows, first, second)
        np.testing.assert_array_equal(rows, layouts.as_rows(VALUES, second))


@settings(max_examples=20, deadline=None)
@given(bits, st.integers(1, BATCH * TOKENS))
def test_a_layout_holds_all_that_is_live_where_there_is_room(text, capacity):
    live = lives(text)
    packed = layouts.packed(pack(live), capacity)
    assert packed.held.sum() == min(int(live.sum()), capacity)
    np.testing.assert_array_equal(layouts.square(live, TOKENS).held, live)


@pytest.mark.parametrize("back", ["packed", "square"])
def test_gradients_are_those_of_a_gather(back):
    live = lives("110100111000001")
    before = layouts.packed(pack(live), 8)
    fewer = live & lives("100100101000001")
    after = layouts.square(fewer, 3) if back == "square" else layouts.packed(pack(fewer), 6)
    rows = jax.random.normal(jax.random.key(0), (8, 2))
    weights = jax.random.normal(jax.random.key(1), (after.rows, 2))

    def ours(rows):
        return (layouts.moved(rows, before, after) * weights).sum()

    def plain(rows):
        source = before.place[after.image, after.token]
        return (jnp.where(after.exists[:, None], rows[source], 0) * weights).sum()

    np.testing.assert_allclose(jax.grad(ours)(rows), jax.grad(plain)(rows), rtol=1e-6)


def test_the_gradient_of_a_move_scatters_nothing():
    layout = layouts.packed(pack(lives("110100111000001")), 8)
    gradient = jax.grad(lambda tokens: layouts.as_rows(tokens, layout).sum())
    assert "scatter" not in str(jax.make_jaxpr(gradient)(VALUES))
