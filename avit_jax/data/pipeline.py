"""Endless training batches and exact evaluation batches of uint8 images, on Grain.

The data position is the step number: batch k of a run that starts at step 0 is the first batch of
a run that starts at step k. Nothing else decides what is in a batch: the order comes from a seeded
shuffle of the positions, an image's randomness from (seed, position), and an unreadable example is
replaced by the next readable one, so positions never shift. With repeated augmentation (arXiv
1901.09335) an image stands at several neighbouring positions. Hosts take contiguous slices of a
global batch, so that any number of hosts, joined in order, sees the same rows in the same places;
worker processes and threads only change who computes a batch (`loading.py`). In this process a
thread decodes a whole batch, several processes share one (`worker_processes.py`).
"""

import contextlib
from collections.abc import Iterator

import grain.python as grain
import numpy as np

from avit_jax.data.augment import Augment
from avit_jax.data.example import Source
from avit_jax.data.imagenet_variants import ImagenetVariant
from avit_jax.data.loading import Batch, LoadEvalBatch, LoadTrainBatch
from avit_jax.data.opencv import require_opencv
from avit_jax.data.order import shuffled
from avit_jax.data.worker_processes import Load, batches_of_processes
from avit_jax.errors import UserError
from avit_jax.runtime.cores import usable_cores
from avit_jax.runtime.environment import MAX_THREADS


def train_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    augment: Augment,
    seed: int,
    step: int = 0,
    repeats: int = 1,
    workers: int = 0,
    threads: int | None = None,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[Batch]:
    """Yields this host's part of every global batch from `step` on, without end.

    Every epoch is shuffled anew; batches run on across epochs, so no example is dropped.

    Args:
        source: the training examples.
        batch_size: images in a global batch, over all hosts.
        image_size: side of the delivered images, in pixels.
        augment: the training transform.
        seed: decides order and augmentation.
        step: number of the first batch.
        repeats: how often an example that was drawn is augmented, see `order.py`.
        workers: decoding processes; 0 decodes in threads of this process.
        threads: decoding threads in each process; by default one per usable core with workers=0,
            otherwise one. More hide the latency of remote storage.
        host: this host's number, 0..hosts-1.
        hosts: number of hosts.

    Yields:
        With b = batch_size / hosts: `image` uint8 [b, S, S, 3], `label` int32 [b], `index` int64
        [b] (the example delivered) and `requested` int64 [b] (the example drawn; another than
        `index` where that one is unreadable).

    Raises:
        UserError: sizes that do not fit together; many neighbouring examples are unreadable.
    """
    local = _local_batch_size(source, batch_size=batch_size, host=host, hosts=hosts)
    if augment.decoder == "opencv":
        require_opencv()
    load = LoadTrainBatch(source, image_size=image_size, augment=augment, seed=seed)
    drawn = shuffled(len(source), seed=seed, repeats=repeats)
    drawn = drawn.batch(local, drop_remainder=True).map_with_index(_numbered)
    return _iterate(drawn[host::hosts][step:], load, workers=workers, threads=threads)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    augment: Augment,
    workers: int = 0,
    threads: int | None = None,
    host: int = 0,
    hosts: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """Yields this host's part of one pass over the source, in order, each example exactly once.

    The arguments are those of `train_batches`, and `first` leaves out so many batches. All hosts
    get the same number of batches.

    Yields:
        The keys of `train_batches`, and `valid` bool [b] (count this row) and `bad` bool [b] (an
        unreadable example, not valid). Rows that only fill up the last batch are neither, with
        index -1. Rows that are not valid have black images and label 0. Of a variant of ImageNet
        also what `ImagenetVariant.verdicts` gives.

    Raises:
        UserError: sizes that do not fit together.
    """
    local = _local_batch_size(source, batch_size=batch_size, host=host, hosts=hosts)
    load = LoadEvalBatch(source, image_size=image_size, augment=augment)
    global_batches = -(-len(source) // batch_size)
    drawn = grain.MapDataset.range(global_batches * batch_size).batch(local)
    drawn = drawn.map_with_index(_numbered)[host::hosts][first:]
    batches = _iterate(drawn, load, workers=workers, threads=threads)
    return _judged(batches, source) if isinstance(source, ImagenetVariant) else batches


def _judged(batches: Iterator[Batch], source: ImagenetVariant) -> Iterator[Batch]:
    """Adds what an evaluation has to know beside the labels; closes `batches` when closed."""
    with contextlib.closing(batches):
        for batch in batches:
            yield batch | source.verdicts(batch["index"], batch["valid"])


def _local_batch_size(source: Source, *, batch_size: int, host: int, hosts: int) -> int:
    if not 0 <= host < hosts:
        raise UserError(f"host {host} is not one of {hosts} hosts; write 0 <= host < hosts")
    if batch_size < 1 or batch_size % hosts:
        raise UserError(
            f"batch_size {batch_size} does not divide among {hosts} hosts; "
            f"write a multiple of {hosts}"
        )
    if len(source) == 0:
        raise UserError(f"{source.name} has no examples; choose another split")
    return batch_size // hosts


def _numbered(number: int, drawn: np.ndarray) -> tuple[int, np.ndarray]:
    return number, drawn


def _iterate(
    drawn: grain.MapDataset, load: Load, *, workers: int, threads: int | None
) -> Iterator[Batch]:
    """Yields the batches in order, decoded ahead; stops threads and processes when closed."""
    threads = threads or (1 if workers else min(usable_cores(), MAX_THREADS))
    if workers:
        yield from batches_of_processes(load, drawn, workers=workers, threads=threads)
        return

    def decoded(draw: tuple[int, np.ndarray]) -> Batch:
        number, requested = draw
        layout = load.layout(len(requested)).items()
        batch = {name: np.empty(shape, dtype) for name, (shape, dtype) in layout}
        batch["requested"][:] = requested
        load.fill(batch, number, range(len(requested)))
        return batch

    # One batch more than threads keeps every thread busy while a finished batch waits.
    read_options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    iterator = iter(drawn.map(decoded).to_iter_dataset(read_options))
    try:
        yield from iterator
    finally:
        iterator.close()
