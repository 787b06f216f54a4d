"""A TPU kernel's way through a buffer in which the rows of one image lie behind those of another.

A step treats the rows of one image, while those of the next one are on their way to the chip and
the answers of the one before leave it. An image costs what the smallest of a few lengths that holds
it costs. Written in Pallas for its Mosaic TPU backend; other platforms interpret it, slowly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

ALIGN = 16  # rows of a tile of bfloat16, which a copy takes whole; an image begins with one
LANES = 128  # columns that the chip treats at once


def aligned(length: int) -> int:
    """Rows that so many tokens of an image take."""
    return -(-length // ALIGN) * ALIGN


def over_images(
    body: Callable,
    inputs: tuple[Array, ...],
    *,
    starts: Array,
    lengths: Array,
    longest: int,
    marks: Array | None = None,
    answer: jax.ShapeDtypeStruct,
    answer_starts: Array | None = None,
    answer_lengths: Array | None = None,
    answer_longest: int | None = None,
) -> Array:
    """Rows `[R', width']` that `body` makes of the rows of one image after the other.

    Args:
        body: writes answers, called with references to the first `size` rows of each input, to the
            image's `marks` `[1, longest]` if any, to `[answer_longest, width']` for the answers,
            and with the image's length and `size`, a number of the program. Rows behind the
            length hold anything. Not called for images without rows.
        inputs: buffers `[R, width]` of rows.
        starts: `[B]` int32, first row of each image, multiples of `ALIGN`.
        lengths: `[B]` int32, rows of each image in the inputs.
        longest: the most rows of an image, a multiple of `ALIGN`.
        marks: `[B, longest]`, something of each of an image's rows.
        answer: shape and dtype of the result. Rows of no image are undefined, NaN perhaps.
        answer_starts: `[B]`, as `starts`, of the answers; that of the inputs by default.
        answer_lengths: likewise.
        answer_longest: likewise.
    """
    starts, lengths = _inside(inputs[0], starts, lengths)
    target, wanted = starts, lengths if answer_lengths is None else answer_lengths
    if answer_starts is not None:
        target, wanted = _inside(answer, answer_starts, wanted)
    most = longest if answer_longest is None else answer_longest
    scalars = (starts, lengths, target, jnp.where(lengths > 0, jnp.minimum(wanted, most), 0))
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    specs, operands = [anywhere] * len(inputs), list(inputs)
    if marks is not None:
        specs.append(pl.BlockSpec((1, 1, longest), lambda image, *_: (image, 0, 0)))
        operands.append(marks[:, None])

    def call(*arguments: Array, interpret: bool) -> Array:
        return pl.pallas_call(
            functools.partial(_step, body=body, inputs=len(inputs), marked=marks is not None),
            out_shape=answer,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=len(scalars),
                grid=(len(starts),),
                in_specs=specs,
                out_specs=anywhere,
                scratch_shapes=[
                    *(pltpu.VMEM((2, longest, rows.shape[1]), rows.dtype) for rows in inputs),
                    pltpu.VMEM((2, most, answer.shape[1]), answer.dtype),
                    pltpu.SemaphoreType.DMA((2,)),
                    pltpu.SemaphoreType.DMA((2,)),
                ],
            ),
            interpret=interpret,
        )(*arguments)

    # The platform that is compiled for decides, which need not be here.
    return lax.platform_dependent(
        *(scalar.astype(jnp.int32) for scalar in scalars),
        *operands,
        tpu=functools.partial(call, interpret=False),
        default=functools.partial(call, interpret=True),
    )


def _inside(rows: Array, starts: Array, lengths: Array) -> tuple[Array, Array]:
    """Images as far as they lie in a buffer, where some may have found no place."""
    end = len(rows) if isinstance(rows, Array) else rows.shape[0]
    end -= end % ALIGN
    return jnp.minimum(starts, end), jnp.clip(end - starts, 0, lengths)


def _step(starts, lengths, target_starts, target_lengths, *refs, body, inputs, marked):
    """One image: wait for its rows, send for those of the next, compute, send the answers away."""
    sources, rest = refs[:inputs], refs[inputs:]
    marks, rest = rest[:marked], rest[marked:]
    target, *buffers, answers, came, went = rest
    image, images = pl.program_id(0), pl.num_programs(0)
    longest = buffers[0].shape[1]

    def fetch(which, act):
        def piece(first, size):
            rows = pl.ds(pl.multiple_of(starts[which] + first, ALIGN), size)
            for source, buffer in zip(sources, buffers, strict=True):
                place = buffer.at[which & 1, pl.ds(first, size)]
                act(pltpu.make_async_copy(source.at[rows], place, came.at[which & 1]))

        _in_pieces(lengths[which], longest, piece)

    def leave(which, act):
        def piece(first, size):
            rows = pl.ds(pl.multiple_of(target_starts[which] + first, ALIGN), size)
            place = answers.at[which & 1, pl.ds(first, size)]
            act(pltpu.make_async_copy(place, target.at[rows], went.at[which & 1]))

        _in_pieces(target_lengths[which], answers.shape[1], piece)

    pl.when(image == 0)(lambda: fetch(image, _begin))
    pl.when(image + 1 < images)(lambda: fetch(image + 1, _begin))
    fetch(image, _wait)
    pl.when(image >= 2)(lambda: leave(image - 2, _wait))
    below = 0
    for size in sizes(longest):
        fitting = (lengths[image] > below) & (lengths[image] <= size)
        views = [buffer.at[image & 1, pl.ds(0, size)] for buffer in buffers]
        views += [mark.at[0] for mark in marks]
        pl.when(fitting)(
            functools.partial(body, *views, answers.at[image & 1], lengths[image], size=size)
        )
        below = size
    leave(image, _begin)

    @pl.when(image == images - 1)
    def _():
        pl.when(image >= 1)(lambda: leave(image - 1, _wait))
        leave(image, _wait)


def _begin(copy):
    copy.start()


def _wait(copy):
    copy.wait()


def _in_pieces(length, longest: int, piece: Callable) -> None:
    """Call `piece(first row, size)` for powers of 2 of tiles that make up `length` rows.

    Copies have sizes that are numbers of the program.
    """
    # Shifts and masks, for a signed division asks which TPU it is.
    tiles = (length + ALIGN - 1) >> (ALIGN.bit_length() - 1)
    for bit in reversed(range((longest // ALIGN).bit_length())):
        first = pl.multiple_of((tiles >> (bit + 1) << (bit + 1)) * ALIGN, ALIGN)
        pl.when((tiles >> bit) & 1 == 1)(functools.partial(piece, first, ALIGN << bit))


def sizes(longest: int) -> list[int]:
    """Lengths that a kernel computes for."""
    fewer = [LANES // 2, *range(LANES, longest, LANES)]
    return [size for size in fewer if size < longest] + [longest]


def existing(rows: Array, length) -> Array:
    """Rows `[n, width]` of which those behind the first `length`, which may be anything, are 0."""
    row = lax.broadcasted_iota(jnp.int32, rows.shape, 0)
    return jnp.where(row < length, rows, jnp.zeros((), rows.dtype))


def product(left: Array, right: Array, over: tuple[int, int]) -> Array:
    """A matrix product that sums over one axis of each, float32; exact float32 if they are that."""
    exact = lax.Precision.HIGHEST if left.dtype == jnp.float32 else None
    dimensions = (((over[0],), (over[1],)), ((), ()))
    return lax.dot_general(
        left, right, dimensions, precision=exact, preferred_element_type=jnp.float32
    )
