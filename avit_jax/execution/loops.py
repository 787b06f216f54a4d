"""Loops whose trip counts are data and whose bodies have static sizes.

One loop per size, run as often as that size is needed, which is mostly not at all. A `lax.switch`
would say the same, but copies the buffers that its branches write to; loops write in place.

XLA moves whatever does not depend on a loop's counter in front of the loop, where it is computed
even if the loop never runs. So every body reads from rows that are tied to the counter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import Array, lax

from avit_jax.execution.plan import Plan

Carry = TypeVar("Carry")


def for_rows(
    body: Callable[[Array, int, Carry], Carry], total: Array, carry: Carry, plan: Plan
) -> Carry:
    """Call `body(first row, number of rows, carry)` so that rows 0..total-1 are all treated.

    Blocks of the plan's largest size, then one of the smallest size that holds what is left.
    """
    block = plan.row_sizes[-1]
    if len(plan.row_sizes) == 1:
        return lax.fori_loop(0, -(-total // block), lambda i, c: body(i * block, block, c), carry)
    full = total // block
    carry = lax.fori_loop(0, full, lambda i, c: body(i * block, block, c), carry)
    rest = total - full * block
    smaller = 0
    for size in plan.row_sizes:
        wanted = (rest > smaller) & (rest <= size)

        def treat(counter: Array, carry: Carry, size: int = size) -> Carry:
            return body(_tied(full * block, counter), size, carry)

        carry = lax.fori_loop(0, wanted.astype(jnp.int32), treat, carry)
        smaller = size
    return carry


def for_images(
    body: Callable[[Array, Array, int, Carry], Carry],
    counts: Array,
    offsets: Array,
    carry: Carry,
    plan: Plan,
) -> Carry:
    """Call `body(images, first rows, length, carry)` so that all images are treated.

    Images with like numbers of tokens are treated together, at the smallest of the plan's lengths
    that holds the largest; images without any token are left out where a whole group has none. The
    last group may be filled up with images that have been treated already.

    Args:
        body: images and their first rows are indices `[attention_images]`; an image that is named
            twice in a group is the same.
        counts: `[B]` tokens of each image; or of whatever else is treated by itself.
        offsets: `[B]` its first row.
        carry: passes through.
        plan: sizes.
    """
    size = min(plan.attention_images, counts.shape[0])
    groups = -(-counts.shape[0] // size)
    order = jnp.argsort(-counts)
    order = jnp.pad(order, (0, groups * size - counts.shape[0]), mode="edge")
    largest = counts[order[::size]]
    done = jnp.int32(0)
    for index in reversed(range(len(plan.lengths))):
        below = plan.lengths[index - 1] if index else 0
        until = (largest > below).sum(dtype=jnp.int32)

        def treat(group: Array, carry: Carry, length: int = plan.lengths[index]) -> Carry:
            images = lax.dynamic_slice(order, (group * size,), (size,))
            return body(images, _tied(offsets[images], group), length, carry)

        carry = lax.fori_loop(done, until, treat, carry)
        done = until
    return carry


def smallest(values: Array, sizes: tuple[int, ...]) -> Array:
    """Index of the smallest of ascending `sizes` that holds each value."""
    return (values[..., None] > jnp.asarray(sizes[:-1], jnp.int32)).sum(-1, dtype=jnp.int32)


def _tied(rows: Array, counter: Array) -> Array:
    """`rows`, as something that depends on a loop's counter, which is never below 0."""
    return rows + jnp.minimum(counter, 0)
