"""Loops over sizes treat every row and every image once, at a size that holds it."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from avit_jax.execution.loops import for_images, for_rows
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
