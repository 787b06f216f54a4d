"""A segment on a few images after the others, as many as there are: for CPUs.

What a few images need stays in the cache, and images that only fill up a batch cost nothing.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax

from avit_jax.execution.image_groups import map_images
from avit_jax.execution.loops import for_rows
from avit_jax.execution.plan import Plan
from avit_jax.models.functional import Params
from avit_jax.streaming.segment import Passed, Segment


def in_blocks(segment: Segment, plan: Plan, sizes: tuple[int, ...]) -> Segment:
    """The same segment, in blocks of the largest size and one smaller one for what is left.

    Args:
        segment: of any batch; images that exist come first.
        plan: of the model.
        sizes: numbers of images that it is compiled for, ascending.
    """
    blocks = dataclasses.replace(plan, row_sizes=sizes)

    def run(params: Params, state: object, exists: Array) -> Passed:
        batch = len(exists)

        def treat(first: Array, size: int) -> Passed:
            rows = jnp.minimum(first + jnp.arange(size), batch - 1)
            taken = jax.tree.map(lambda leaf: leaf[rows], state)
            passed = segment(params, taken, exists[rows])
            return passed.replace(output=map_images(passed.output, _in_front))

        def body(first: Array, size: int, held: Passed) -> Passed:
            return jax.tree.map(
                lambda rows, made: lax.dynamic_update_slice_in_dim(rows, made, first, 0),
                held,
                treat(first, size),
            )

        made = jax.eval_shape(lambda first: treat(first, sizes[0]), jnp.int32(0))
        empty = jax.tree.map(
            lambda leaf: jnp.zeros((batch + sizes[-1], *leaf.shape[1:]), leaf.dtype), made
        )
        found = for_rows(body, exists.sum(dtype=jnp.int32), empty, blocks)
        found = jax.tree.map(lambda rows: rows[:batch], found)
        return found.replace(output=map_images(found.output, _back))

    return run


def _in_front(leaf: Array, axis: int) -> Array:
    return jnp.moveaxis(leaf, axis, 0)


def _back(leaf: Array, axis: int) -> Array:
    return jnp.moveaxis(leaf, 0, axis)
