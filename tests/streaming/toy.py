"""Segments that cost nothing: the first pixel of an image says by which one it leaves."""

import threading

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.streaming.limits import BATCHES_IN_A_QUEUE, Limits
from avit_jax.streaming.programs import Programs
from avit_jax.streaming.segment import Passed
from avit_jax.streaming.stream import Stream
from avit_jax.types import Output

SIZE = 2


def segment(number, count):
    """Says for an image its number, the segment, and how often it was doubled on the way."""

    def run(params, state, exists):
        images, doubled = state if number else (state, jnp.ones(len(state)))
        doubled = doubled * params
        logits = jnp.stack([images[:, 0, 1, 0], jnp.full(len(images), number), doubled], 1)
        leaves = jnp.logical_or(images[:, 0, 0, 0] <= number, number == count - 1)
        state = () if number == count - 1 else (images, doubled)
        return Passed(output=Output(logits=logits, usage=()), leaves=leaves, state=state)

    return run


class Gated(Programs):
    """Programs that begin only while a gate is open, and remember how many images they got."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.gate, self.began, self.error = threading.Event(), [], None
        self.gate.set()

    def begin(self, segment, taken, count, room):
        self.began.append((segment, count))
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return super().begin(segment, taken, count, room)


def programs(*, segments=3, batch_size=4):
    """Programs of so many segments, which serve one stream after another."""
    return Gated(
        [segment(number, segments) for number in range(segments)],
        jnp.float32(2.0),
        read=lambda output: {"logits": output.logits},
        batch_size=batch_size,
        places=BATCHES_IN_A_QUEUE * batch_size,
        image_size=SIZE,
        device=jax.devices()[0],
    )


def stream(*programs, capacity=8, max_wait=None):
    """A stream through them."""
    limits = Limits(batch_size=programs[0].batch_size, capacity=capacity, max_wait=max_wait)
    return Stream(programs, limits=limits, image_size=SIZE)


def image(number, leaves):
    """An image that leaves by a segment."""
    pixels = np.zeros((SIZE, SIZE, 3), np.float32)
    pixels[0, :, 0] = leaves, number
    return pixels


def expect(answer, number, leaves):
    """The answer to `image(number, leaves)`."""
    assert answer.error is None and answer.segment == leaves
    np.testing.assert_array_equal(answer.logits, [number, leaves, 2.0 ** (leaves + 1)])
