"""Images for prediction, decoded in threads while the device computes, in the order of the source.

Evaluation stops at broken data, because its numbers would be wrong. Prediction goes on: whatever
error a file causes becomes the reason that is reported for that file, and the next one is read.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.example import BadExample, Source, read_example
from avit_jax.runtime.cores import usable_cores
from avit_jax.runtime.environment import MAX_THREADS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """Consecutive images of a source.

    Attributes:
        start: index of the first one in the source.
        images: uint8 `[B, S, S, 3]`; black where there is a reason, and after the last image.
        labels: their classes, as the source has them; `None` where there is a reason.
        reasons: why an image cannot be used, as a predicate ("cannot be ..."), or `None`.
    """

    start: int
    images: np.ndarray
    labels: Sequence[int | None]
    reasons: Sequence[str | None]


def load_ahead(
    source: Source,
    indices: range,
    *,
    batch_size: int,
    image_size: int,
    augment: Augment,
    threads: int | None = None,
) -> Generator[Loaded, None, None]:
    """Yield the images of `indices` in order; close the generator to stop its threads early.

    Args:
        source: of the images, safe to read from threads.
        indices: consecutive.
        batch_size: images B that are yielded together. Memory holds at most two such batches more,
            or as many as give each thread two images.
        image_size: side S of the images, in pixels.
        augment: holds the evaluation crop.
        threads: that decode; one per usable core if unset.
    """
    threads = threads or min(usable_cores(), MAX_THREADS)
    batches_ahead = max(2, math.ceil(2 * threads / batch_size))
    pending: collections.deque[tuple[int, np.ndarray, list[Future]]] = collections.deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def load(index: int, image: np.ndarray) -> tuple[int | None, str | None]:
        label, reason = None, None
        try:
            label = _load(source, index, image, augment)
        except BadExample as error:
            reason = str(error)
        # Decoders raise whatever they like on broken files, and none of them may end the run.
        except Exception as error:
            detail = " ".join(str(error).split())
            reason = f"cannot be used: {type(error).__name__}{f': {detail}' if detail else ''}"
        if reason is not None:
            image[:] = 0
        return label, reason

    def collect() -> Loaded:
        start, images, futures = pending.popleft()
        results = [future.result() for future in futures]
        labels, reasons = zip(*results, strict=True)
        return Loaded(start=start, images=images, labels=labels, reasons=reasons)

    try:
        for start in range(indices.start, indices.stop, batch_size):
            images = np.zeros((batch_size, image_size, image_size, 3), np.uint8)
            rows = range(min(batch_size, indices.stop - start))
            futures = [pool.submit(load, start + row, images[row]) for row in rows]
            pending.append((start, images, futures))
            if len(pending) > batches_ahead:
                yield collect()
        while pending:
            yield collect()
    finally:
        pool.shutdown(cancel_futures=True)


def _load(source: Source, index: int, image: np.ndarray, augment: Augment) -> int:
    """Fills `image` and returns its class."""
    example = read_example(source, index)
    size = image.shape[0]
    image[:] = eval_image(example.image, size=size, augment=augment)
    return example.label
