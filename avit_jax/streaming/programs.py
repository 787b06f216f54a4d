"""The segments of a model as programs of fixed size on one device, with the queues between them.

A queue is a pytree of arrays `[places, ...]` that never leaves the device. A program reads some
places of the queue in front of its segment and writes every row of what it makes to a free place of
the queue behind it; which of these rows are images that go on is known from a few flags, later, so
that programs can be begun before the answers of earlier ones are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.data.mix import normalise
from avit_jax.models.functional import Params
from avit_jax.streaming.segment import Passed, Segment
from avit_jax.types import Output

Read = Callable[[Output], Mapping[str, Array]]
Flags = tuple[Mapping[str, Array], Array]  # what is read of each image, and which leave


class Programs:
    """Compiled segments and their queues.

    Args:
        segments: of the model.
        params: of the model.
        read: what is wanted of each image, `[b, ...]` under their names.
        batch_size: images b of every program.
        places: of each queue between two segments.
        image_size: side S of the images, in pixels.
        device: where all of it lies.

    Attributes:
        batch_size, places: as given.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        params: Params,
        *,
        read: Read,
        batch_size: int,
        places: int,
        image_size: int,
        device: jax.Device,
    ):
        self.batch_size, self.places = batch_size, places
        self._size = image_size
        self._put = lambda tree: jax.device_put(tree, device)
        self._params = self._put(params)
        self._normalise = jax.jit(normalise)
        place = jax.sharding.SingleDeviceSharding(device)

        def on_device(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        def queue_of(leaf: Any) -> jax.ShapeDtypeStruct:
            return on_device(jax.ShapeDtypeStruct((places, *leaf.shape[1:]), leaf.dtype))

        rows = on_device(jax.ShapeDtypeStruct((batch_size,), jnp.int32))
        exists = on_device(jax.ShapeDtypeStruct((batch_size,), jnp.bool_))
        known = jax.tree.map(on_device, self._params)
        images = (batch_size, image_size, image_size, 3)
        taken = state = on_device(jax.ShapeDtypeStruct(images, jnp.float32))
        self._queues: list[Any] = []
        self._programs = []
        for number, segment in enumerate(segments):
            made = jax.eval_shape(segment, known, state, exists).state
            queue = jax.tree.map(queue_of, made)
            program = jax.jit(_program(segment, read, is_first=number == 0), donate_argnums=(4,))
            self._programs.append(program.lower(known, taken, rows, exists, queue, rows).compile())
            zeros = jax.jit(lambda queue=queue: jax.tree.map(_zeros, queue), out_shardings=place)
            self._queues.append(zeros())  # behind this segment
            taken, state = queue, jax.tree.map(on_device, made)

    def __len__(self) -> int:
        """Segments."""
        return len(self._programs)

    def begin(self, segment: int, taken: Any, count: int, room: Sequence[int]) -> Flags:
        """Begin to run a segment; waits for nothing.

        Args:
            segment: its number.
            taken: of the first segment the images, of one dtype, at most `batch_size`; of others
                their places in the queue in front of it.
            count: images.
            room: free places of the queue behind it, one for each image; none of the last segment.

        Returns:
            What is read of each row, and which rows leave; on the device.
        """
        if segment:
            source, rows = self._queues[segment - 1], self._filled(taken, 0)
        else:
            source, rows = self._images(taken), self._filled((), 0)
        exists = np.arange(self.batch_size) < count
        arguments = self._put((rows, exists, self._filled(room, self.places)))
        values, leaves, self._queues[segment] = self._programs[segment](
            self._params, source, *arguments[:2], self._queues[segment], arguments[2]
        )
        for leaf in (*values.values(), leaves):
            leaf.copy_to_host_async()
        return values, leaves

    def _filled(self, places: Sequence[int], other: int) -> np.ndarray:
        """Places of all rows of a batch; `other` of those that only fill it up."""
        found = np.full(self.batch_size, other, np.int32)
        found[: len(places)] = places
        return found

    def _images(self, images: Sequence[np.ndarray]) -> Array:
        """A batch as the first segment takes it."""
        is_pixels = images[0].dtype == np.uint8
        size = (self.batch_size, self._size, self._size, 3)
        batch = np.zeros(size, np.uint8 if is_pixels else np.float32)
        for row, image in enumerate(images):
            batch[row] = image
        on_device = self._put(batch)
        return self._normalise(on_device) if is_pixels else on_device


def _program(segment: Segment, read: Read, *, is_first: bool) -> Callable:
    def run(
        params: Params, source: Any, rows: Array, exists: Array, queue: Any, room: Array
    ) -> tuple[Mapping[str, Array], Array, Any]:
        taken = source if is_first else jax.tree.map(lambda leaf: leaf[rows], source)
        passed: Passed = segment(params, taken, exists)
        # A place behind the queue's last is none: rows that only fill up a batch are dropped.
        behind = jax.tree.map(
            lambda held, made: held.at[room].set(made, mode="drop"), queue, passed.state
        )
        return dict(read(passed.output)), passed.leaves, behind

    return run


def _zeros(leaf: jax.ShapeDtypeStruct) -> Array:
    return jnp.zeros(leaf.shape, leaf.dtype)
