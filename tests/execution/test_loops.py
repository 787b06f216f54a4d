"""Loops over sizes treat every row and every image once, at a size that holds it."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from avit_jax.execution.loops import for_images, for_rows, for_selected, selected_groups
from avit_jax.execution.plan import Plan

TOKENS = 9
PLAN = Plan(images=5, row_sizes=(4, 8, 16), attention_images=2, lengths=(3, 6, 9), dense_images=1)


@jax.jit
def rows_seen(total):
    def body(first, size, seen):
        part = lax.dynamic_slice(seen, (first,), (size,))
        return lax.dynamic_update_slice(seen, part + 1, (first,))

    return for_rows(body, total, jnp.zeros(80, jnp.int32), PLAN)


@settings(deadline=None)
@given(st.integers(0, 60))
def test_every_live_row_is_treated_once(total):
    run = PLAN.rows_run(total)
    np.testing.assert_array_equal(rows_seen(total), np.arange(80) < run)


@jax.jit
def images_seen(counts, offsets):
    def body(images, firsts, length, seen):
        # An image named twice in a group is written twice with the same value.
        return seen[0].at[images].set(length), seen[1].at[images].set(firsts)

    nothing = jnp.zeros(5, jnp.int32)
    return for_images(body, counts, offsets, (nothing, nothing), PLAN)


@settings(deadline=None)
@given(st.lists(st.integers(0, TOKENS), min_size=5, max_size=5))
def test_every_image_with_tokens_is_treated_at_a_length_that_holds_it(counts):
    offsets = np.cumsum([0, *counts[:-1]])
    lengths, firsts = images_seen(np.array(counts), offsets)
    for image, count in enumerate(counts):
        if count:
            assert lengths[image] >= count
            assert firsts[image] == offsets[image]


CHOICES = st.lists(
    st.tuples(st.integers(0, TOKENS), st.lists(st.booleans(), min_size=3, max_size=3)),
    min_size=7,
    max_size=7,
)
# Numbers of heads that there are programs for, and images at a time.
SIZES = st.sampled_from([((1, 2, 3), 2), ((1, 3), 3), ((3,), 1), ((2, 3), 9)])


@functools.cache
def selected_seen(head_sizes, group):
    """How images are grouped, and how often each was treated at which sizes."""
    plan = dataclasses.replace(PLAN, attention_images=group)

    def body(images, length, width, seen):
        # An image that is named twice in a group is written twice with the same value.
        return seen.at[images].set(seen[images] + jnp.array([1, width, length]))

    def program(counts, heads):
        nothing = jnp.zeros((len(counts), 3), jnp.int32)
        return (
            *selected_groups(counts, heads, plan, head_sizes),
            for_selected(body, counts, heads, nothing, plan, head_sizes),
        )

    return jax.jit(program)


@settings(deadline=None)
@given(CHOICES, SIZES)
def test_every_image_with_tokens_is_treated_once_with_a_group_at_sizes_that_hold_it(choices, sizes):
    counts, heads = (np.array(part) for part in zip(*choices, strict=True))
    order, kind, seen = map(np.asarray, selected_seen(*sizes)(counts, heads))
    # The last group may be filled up with an image that it holds.
    assert sorted(order.reshape(-1)[: len(counts)]) == list(range(len(counts)))
    each = [*itertools.product(sizes[0], PLAN.lengths), (0, 0)]
    for images, number in zip(order, kind, strict=True):
        width, length = each[number]
        busy = images[counts[images] > 0]
        assert (length > 0) == bool(len(busy))
        assert (counts[images] <= length).all()
        assert heads[busy].any(0).sum() <= width
        np.testing.assert_array_equal(seen[images], [[length > 0, width, length]] * len(images))
