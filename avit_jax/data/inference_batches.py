"""Images decoded ahead of the device, in order, each with the reason where it cannot be used.

Evaluation must not go on over broken data; prediction must: whatever a file does to a decoder
becomes the reason beside that file, and the next one is read.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import os
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.example import BadExample, Source, read_example

MAX_THREADS = 16
LARGEST_PIXELS = 2**27  # of the resized image in front of the crop; a long, thin one explodes there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """Consecutive images of a source.

    Attributes:
        start: index of the first one in the source.
        images: uint8 `[B, S, S, 3]`; black where there is a reason, and behind the last image.
        labels: their classes, as the source has them; `None` where there is a reason.
        reasons: why an image cannot be used ("cannot be ..."), or `None`.
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
    threads = threads or min(_usable_cores(), MAX_THREADS)
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
    if isinstance(example.image, bytes):
        _refuse_thin(example.image, round(size / augment.crop_ratio))
    image[:] = eval_image(example.image, size=size, augment=augment)
    return example.label


def _refuse_thin(encoded: bytes, shorter: int) -> None:
    """Raises BadExample for an image whose shorter side cannot be enlarged within the memory."""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            width, height = opened.size
    except Exception:
        return  # not for this reason: the decoder says for which
    if shorter * shorter * max(width, height) > LARGEST_PIXELS * min(width, height):
        raise BadExample(f"is {width} x {height} pixels, too long and thin to be resized")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
