"""Images/s of the input pipeline end to end, against bare decoding of the same files.

    python benchmarks/input_pipeline.py --name imagenette/160px-v2 --data_dir DIR --image_size 128

Two measurements take turns in one process, over the same examples with the same number of threads,
each going first in every other turn:

  bare      each thread reads its share of the examples, decodes and augments them and drops the
            result: what any pipeline has to do at least
  pipeline  `train_batches` up to the batch in the hands of the caller: the order, substitution,
            a generator per image, and one array per batch on top

The ratio pipeline / bare is taken per turn, because the speed of a shared machine drifts between
turns but hardly within one; its median is what to read, its range says how far to trust it. With
--workers N the pipeline has N processes and bare has N threads, which share one interpreter: a
ratio above 1 is then possible.
"""

import argparse
import multiprocessing
import platform
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from avit_jax.data.augment import Augment, train_image
from avit_jax.data.pipeline import train_batches
from avit_jax.data.sources import Source, open_source
from avit_jax.runtime.cores import usable_cores
from avit_jax.runtime.environment import processor


def bare_rate(
    source: Source, indices: np.ndarray, *, image_size: int, augment: Augment, threads: int
) -> float:
    """Returns images/s of `threads` threads that only read, decode and augment `indices`."""

    def work(share: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        for index in share:
            train_image(source[int(index)].image, rng, size=image_size, augment=augment)

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(work, np.array_split(indices, threads)))
        return len(indices) / (time.perf_counter() - start)


def pipeline_rate(
    source: Source,
    *,
    steps: int,
    batch_size: int,
    image_size: int,
    augment: Augment,
    workers: int,
    threads: int,
) -> tuple[float, np.ndarray]:
    """Returns images/s over `steps` batches, and the indices of the examples delivered.

    The clock starts when as much has been decoded ahead as stays so until it stops: neither the
    start of the processes, paid once a run, nor work for later batches is counted.
    """
    batches = train_batches(
        source,
        batch_size=batch_size,
        image_size=image_size,
        augment=augment,
        seed=0,
        workers=workers,
        threads=None if workers else threads,
    )
    for _ in range(4 * (workers or threads)):
        next(batches)
    start = time.perf_counter()
    indices = np.concatenate([next(batches)["index"] for _ in range(steps)])
    seconds = time.perf_counter() - start
    batches.close()
    wait_until_idle()
    return len(indices) / seconds, indices


def wait_until_idle() -> None:
    """Returns when threads and processes have finished what they had begun to decode ahead."""
    for process in multiprocessing.active_children():
        process.join()
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join()


def parse_arguments() -> argparse.Namespace:
    """Returns the command line's settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="digits", help="digits, folder or a TFDS name")
    parser.add_argument("--data_dir", help="where the data lie; or TFDS_DATA_DIR")
    parser.add_argument("--image_size", type=int, default=128, help="pixels")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="decoding processes; 0: threads")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each measurement")
    parser.add_argument("--steps", type=int, default=30, help="batches in a turn")
    parser.add_argument("--decoder", default="pillow", choices=("pillow", "opencv"))
    return parser.parse_args()


def main() -> None:
    """Measures in turns and prints the table."""
    arguments = parse_arguments()
    source = open_source(arguments.name, split="train", data_dir=arguments.data_dir)
    augment = Augment(decoder=arguments.decoder)
    threads = arguments.workers or usable_cores()
    rates: dict[str, list[float]] = {"bare": [], "pipeline": []}

    def measure_pipeline() -> np.ndarray:
        rate, indices = pipeline_rate(
            source,
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            image_size=arguments.image_size,
            augment=augment,
            workers=arguments.workers,
            threads=threads,
        )
        rates["pipeline"].append(rate)
        return indices

    def measure_bare() -> None:
        rates["bare"].append(
            bare_rate(
                source, indices, image_size=arguments.image_size, augment=augment, threads=threads
            )
        )

    # Fills the file cache and says which examples the batches hold; not counted.
    indices = measure_pipeline()
    rates["pipeline"].clear()
    for turn in range(arguments.repeats):
        in_turn = (measure_pipeline, measure_bare)
        for measure in in_turn if turn % 2 else reversed(in_turn):
            measure()
    ratios = [one / other for one, other in zip(rates["pipeline"], rates["bare"], strict=True)]
    kind = f"{threads} processes" if arguments.workers else f"{threads} threads"
    print(f"{processor()}, {usable_cores()} usable cores, Python {platform.python_version()}")
    print(
        f"{source.name}, {arguments.image_size} px, batch {arguments.batch_size}, "
        f"{arguments.decoder}, {kind}, {arguments.repeats} turns of {len(indices)} images\n"
    )
    print(f"{'':10}{'median':>12}{'lowest':>12}{'highest':>12}")
    for name, values in rates.items():
        row = f"{statistics.median(values):12,.0f}{min(values):12,.0f}{max(values):12,.0f}"
        print(f"{name:10}{row}  images/s")
    row = f"{statistics.median(ratios):12.1%}{min(ratios):12.1%}{max(ratios):12.1%}"
    print(f"{'ratio':10}{row}  pipeline / bare, per turn")


if __name__ == "__main__":
    main()
