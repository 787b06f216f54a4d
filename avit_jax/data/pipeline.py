"""Endless training batches and exact evaluation batches of uint8 images, on Grain.

The data position is the step number: batch k of a run that starts at step 0 is the first batch of
a run that starts at step k. Nothing else decides what is in a batch: the order comes from a seeded
shuffle of the positions, an image's randomness from (seed, position), and an unreadable example is
replaced by the next readable one, so positions never shift. With repeated augmentation (arXiv
1901.09335) an image stands at several neighbouring positions. Hosts take contiguous slices of a
global batch, so that any number of hosts, joined in order, sees the same rows in the same places;
worker processes and threads only change who computes a batch.

A batch is decoded as a whole by one thread or process straight into its array: no image is copied
to be stacked.
"""

import dataclasses
import signal
from collections.abc import Iterator

import grain.python as grain
import numpy as np
from absl import flags

from avit_jax.data.augment import Augment, eval_image, train_image
from avit_jax.data.example import BadExample, Source, read_example
from avit_jax.data.opencv import require_opencv
from avit_jax.data.order import shuffled
from avit_jax.errors import UserError
from avit_jax.runtime.cores import usable_cores
from avit_jax.runtime.environment import MAX_THREADS

Batch = dict[str, np.ndarray]

MAX_SUBSTITUTES = 64  # examples tried in place of an unreadable one


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
    batches = shuffled(len(source), seed=seed, repeats=repeats)
    batches = batches.batch(local, drop_remainder=True).map_with_index(load)
    return _iterate(batches[host::hosts][step:], workers=workers, threads=threads)


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
) -> Iterator[Batch]:
    """Yields this host's part of one pass over the source, in order, each example exactly once.

    The arguments are those of `train_batches`. All hosts get the same number of batches.

    Yields:
        The keys of `train_batches`, and `valid` bool [b] (count this row) and `bad` bool [b] (an
        unreadable example, not valid). Rows that only fill up the last batch are neither, with
        index -1. Rows that are not valid have black images and label 0.

    Raises:
        UserError: sizes that do not fit together.
    """
    local = _local_batch_size(source, batch_size=batch_size, host=host, hosts=hosts)
    load = LoadEvalBatch(source, image_size=image_size, augment=augment)
    global_batches = -(-len(source) // batch_size)
    batches = grain.MapDataset.range(global_batches * batch_size).batch(local).map(load)
    return _iterate(batches[host::hosts], workers=workers, threads=threads)


@dataclasses.dataclass(frozen=True)
class LoadTrainBatch(grain.MapWithIndexTransform):
    """From the drawn examples of a batch to the batch; top-level, so that it pickles."""

    source: Source
    image_size: int
    augment: Augment
    seed: int

    def map_with_index(self, index: int, requested: np.ndarray) -> Batch:
        """Returns batch `index` (counted over all hosts) of the examples `requested`, int [b]."""
        batch = _empty_batch(requested, image_size=self.image_size)
        for row, wanted in enumerate(requested):
            # Row r of batch i has a position of its own in the run, whatever the hosts.
            position = index * len(requested) + row
            rng = np.random.Generator(np.random.Philox(key=[self.seed, position]))
            self._fill_row(batch, row, int(wanted), rng)
        return batch

    def _fill_row(self, batch: Batch, row: int, wanted: int, rng: np.random.Generator) -> None:
        count = len(self.source)
        tries = min(count, MAX_SUBSTITUTES)
        for offset in range(tries):
            index = (wanted + offset) % count
            try:
                example = read_example(self.source, index)
                batch["image"][row] = train_image(
                    example.image, rng, size=self.image_size, augment=self.augment
                )
            except BadExample as error:
                reason = error
                continue
            batch["label"][row] = example.label
            batch["index"][row] = index
            return
        raise UserError(
            f"{tries} examples in a row from {self.source.describe(wanted)} on are unreadable, "
            f"the last because it {reason}; repair or replace the data"
        )


@dataclasses.dataclass(frozen=True)
class LoadEvalBatch(grain.MapTransform):
    """From positions in the padded split to the batch; top-level, so that it pickles."""

    source: Source
    image_size: int
    augment: Augment

    def map(self, positions: np.ndarray) -> Batch:
        """Returns the batch of `positions`, int [b]; those past the split's end are padding."""
        exists = positions < len(self.source)
        batch = _empty_batch(np.where(exists, positions, -1), image_size=self.image_size)
        batch["index"][:] = batch["requested"]
        valid = exists.copy()
        for row in np.flatnonzero(exists):
            try:
                example = read_example(self.source, int(positions[row]))
                batch["image"][row] = eval_image(
                    example.image, size=self.image_size, augment=self.augment
                )
            except BadExample:
                valid[row] = False
                continue
            batch["label"][row] = example.label
        batch["image"][~valid] = 0
        return batch | {"valid": valid, "bad": exists & ~valid}


def _empty_batch(requested: np.ndarray, *, image_size: int) -> Batch:
    size = len(requested)
    return {
        "image": np.empty((size, image_size, image_size, 3), np.uint8),
        "label": np.zeros(size, np.int32),
        "index": np.empty(size, np.int64),
        "requested": requested.astype(np.int64),
    }


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


def _iterate(batches: grain.MapDataset, *, workers: int, threads: int | None) -> Iterator[Batch]:
    """Yields the batches in order, decoded ahead; stops threads and processes when closed."""
    threads = threads or (1 if workers else min(usable_cores(), MAX_THREADS))
    # One batch more than threads keeps every thread busy while a finished batch waits.
    read_options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    dataset = batches.to_iter_dataset(read_options)
    if workers:
        # Grain reads absl flags in its processes, which are unparsed outside absl.app.run.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
            worker_init_fn=_ignore_interrupt,
        )
    iterator = iter(dataset)
    try:
        for batch in iterator:
            # Other processes deliver in shared memory, which must not outlive the iterator.
            yield {name: np.array(value) for name, value in batch.items()} if workers else batch
    finally:
        iterator.close()


def _ignore_interrupt(number: int, count: int) -> None:
    """In a worker: Ctrl-C reaches all processes of a terminal, and the run still needs batches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
