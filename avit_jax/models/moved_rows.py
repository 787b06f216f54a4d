"""Rows of images that move together within each image, by a TPU kernel: no gather, no scatter.

A gather of XLA's takes one row after the other. Here the rows of an image are multiplied with a
matrix of zeros and ones, which is exact: a float32 is the sum of three bfloat16.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from avit_jax.models.image_rows import existing, over_images, product


def move(
    rows: Array,
    targets: Array,
    before: tuple[Array, Array],
    after: tuple[Array, Array],
    capacity: int,
) -> Array:
    """Rows `[R, D]` as rows `[capacity, D]`; what rows of no image hold is undefined.

    Args:
        rows: images as `image_rows.over_images` wants them.
        targets: `[B, longest]` int32, where each row of an image goes, counted from the image's
            first row; negative if it goes nowhere. No two go to the same place.
        before: first row and number of rows of each image, `[B]` int32 each.
        after: where they are to lie.
        capacity: rows of the result.
    """
    return _move(rows, targets, before, after, (capacity, False))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _move(rows: Array, targets: Array, before: tuple, after: tuple, how: tuple) -> Array:
    capacity, back = how
    return over_images(
        functools.partial(_body, back=back),
        (rows,),
        starts=before[0],
        lengths=before[1],
        longest=targets.shape[1],
        marks=targets,
        answer=jax.ShapeDtypeStruct((capacity, rows.shape[1]), rows.dtype),
        answer_starts=after[0],
        answer_lengths=after[1],
    )


def _forward(rows, targets, before, after, how):
    return _move(rows, targets, before, after, how), (len(rows), targets, before, after)


def _backward(how, kept, gradient):
    count, targets, before, after = kept
    starts, lengths = before
    back = _move(gradient, targets, after, before, (count, not how[1]))
    row = jnp.arange(count)[:, None]
    # An image of which no row is left is not treated, nor is what lies between images.
    came = (starts <= row) & (row < starts + jnp.where(after[1] > 0, lengths, 0))
    return jnp.where(came.any(1, keepdims=True), back, 0), None, None, None


_move.defvjp(_forward, _backward)


def _body(rows, targets, answers, length, *, size: int, back: bool) -> None:
    parts, rest = [], existing(rows[...], length)
    while rows.dtype == jnp.float32 and len(parts) < 2:
        parts.append(rest.astype(jnp.bfloat16))
        rest = rest - parts[-1].astype(jnp.float32)
    parts.append(rest.astype(jnp.bfloat16))
    most = answers.shape[0] if back else size
    targets = targets[...] if back else targets[:, :size]
    place = lax.broadcasted_iota(jnp.int32, (size if back else most, targets.shape[1]), 0)
    goes = (targets == place).astype(jnp.float32).astype(jnp.bfloat16)
    moved = sum(product(goes, part, (0 if back else 1, 0)) for part in parts)
    answers[:most] = moved.astype(answers.dtype)
