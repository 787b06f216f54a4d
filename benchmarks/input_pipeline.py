"""Images/s of the input pipeline by decoder and setting, beside a PyTorch DataLoader.

    python benchmarks/input_pipeline.py --name imagenette/160px-v2 --data_dir DIR \
        --image_size 224 --workers 1 --longer_side 500 --randaugment rand-m9-mstd0.5-inc1

Contenders (--contenders), on the same files, with the same number of processes:

  pillow, opencv                the pipeline with either decoder (config.data.augment.decoder)
  pillow-fast, opencv-fast      the same with config.data.augment.fast_shrink
  torch                         a DataLoader of PyTorch on Pillow (`pillow_loader.py`)
  bare                          threads that only read, decode and augment by Pillow, as many as
                                there are processes: what any pipeline has to do at least

All are kept running and take turns, each going first in every other turn; a turn begins when the
others have filled their buffers and rest, and behind the batches that were ready. A ratio is taken
within a turn, because the speed of a shared machine drifts between turns but hardly within one;
its median is what to read, its range says how far to trust it. *Per core* are images in a second of
a core's time, of all processes together, which other work on the machine changes less. With
--workers 1 one process decodes on either side; 0 decodes in this process, the pipeline with
--threads and PyTorch with one.

--longer_side enlarges the photographs to so many pixels (ImageNet's are 500 x 375 in the median)
and writes them as JPEGs of quality 95 first; they are smoother than real ones of that size, and
their files smaller. Take thousands: Grain draws the slower the fewer there are, from a few hundred
at 0.1 ms an image. The differences of the pixels from those of exact decoding are printed too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from processes_at_rest import seconds_of_cores, wait_until_idle

from avit_jax.data.augment import Augment, train_image
from avit_jax.data.pipeline import train_batches
from avit_jax.data.sources import Source, open_source
from avit_jax.runtime.cores import usable_cores
from avit_jax.runtime.environment import processor
from avit_jax.runtime.tables import columns

OWN = ("pillow", "opencv", "pillow-fast", "opencv-fast")


def augment_of(name: str, randaugment: str | None) -> Augment:
    """Returns the training transform of one of the pipeline's contenders."""
    decoder, _, fast = name.partition("-")
    further = {"randaugment": randaugment} if randaugment else {}
    return Augment(decoder=decoder, fast_shrink=bool(fast), **further)


def bare_batches(source: Source, arguments: argparse.Namespace) -> Iterator[None]:
    """Decodes and augments a batch's images in threads, and drops them."""
    rng = np.random.default_rng(0)
    augment = augment_of("pillow", arguments.randaugment)

    def work(index: int) -> None:
        own = np.random.default_rng(index)
        train_image(source[index].image, own, size=arguments.image_size, augment=augment)

    with ThreadPoolExecutor(arguments.workers or arguments.threads) as pool:
        while True:
            list(pool.map(work, rng.integers(len(source), size=arguments.batch_size).tolist()))
            yield


def batches_of(name: str, source: Source, arguments: argparse.Namespace) -> Iterator:
    """Returns the endless batches of a contender."""
    sizes = {"batch_size": arguments.batch_size, "image_size": arguments.image_size}
    if name == "bare":
        return bare_batches(source, arguments)
    if name == "torch":
        import pillow_loader

        further = {"workers": arguments.workers, "randaugment": bool(arguments.randaugment)}
        return pillow_loader.batches(source, **sizes, **further)
    return train_batches(
        source,
        augment=augment_of(name, arguments.randaugment),
        seed=0,
        workers=arguments.workers,
        threads=None if arguments.workers else arguments.threads,
        **sizes,
    )


def rates_of(batches: Iterator, arguments: argparse.Namespace) -> tuple[float, float]:
    """Returns images/s over a turn, and images in a second of a core's time.

    As much is decoded ahead when the clock starts as when it stops, so that neither batches that
    were ready nor work for later ones count.
    """
    for _ in range(2 * max(1, arguments.workers, arguments.threads)):
        next(batches)
    start, used = time.perf_counter(), seconds_of_cores()
    for _ in range(arguments.steps):
        next(batches)
    seconds, used = time.perf_counter() - start, seconds_of_cores() - used
    wait_until_idle()
    images = arguments.steps * arguments.batch_size
    return images / seconds, images / used


@contextlib.contextmanager
def enlarged(source: Source, *, longer_side: int, images: int) -> Iterator[Source]:
    """Writes photographs of a source in another size, and opens the folder."""
    with tempfile.TemporaryDirectory() as root:
        for number in range(min(images, len(source))):
            example = source[number * len(source) // images]
            picture = Image.open(io.BytesIO(example.image)).convert("RGB")
            factor = longer_side / max(picture.size)
            size = tuple(round(side * factor) for side in picture.size)
            folder = Path(root) / "train" / source.class_names[example.label]
            folder.mkdir(parents=True, exist_ok=True)
            picture.resize(size, Image.Resampling.BICUBIC).save(
                folder / f"{number:06}.jpg", quality=95
            )
        yield open_source("folder", split="train", data_dir=root)


def differences(source: Source, name: str, image_size: int, images: int = 200) -> np.ndarray:
    """Returns the mean absolute difference of each image's pixels from the exact decoder's."""
    found = []
    for index in range(min(images, len(source))):
        pixels = [
            train_image(
                source[index].image,
                np.random.default_rng(index),
                size=image_size,
                augment=augment_of(kind, None),
            ).astype(int)
            for kind in (name, "pillow")
        ]
        found.append(np.abs(pixels[0] - pixels[1]).mean())
    return np.array(found)


def parse_arguments() -> argparse.Namespace:
    """Returns the command line's settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", default="imagenette/160px-v2", help="folder or a TFDS name")
    parser.add_argument("--data_dir", help="where the data lie; or TFDS_DATA_DIR")
    parser.add_argument("--image_size", type=int, default=224, help="pixels")
    parser.add_argument("--longer_side", type=int, help="pixels of enlarged photographs")
    parser.add_argument("--images", type=int, default=4000, help="that are enlarged")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1, help="processes; 0: this one")
    parser.add_argument("--threads", type=int, default=1, help="of this process, with --workers 0")
    parser.add_argument("--randaugment", help="as config.data.augment.randaugment")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=20, help="batches in a turn")
    parser.add_argument("--contenders", nargs="+", default=[*OWN, "torch"])
    parser.add_argument("--beside", default="torch", help="contender that ratios are taken to")
    arguments = parser.parse_args()
    if arguments.beside not in arguments.contenders:
        parser.error(f"--beside {arguments.beside} is none of --contenders")
    return arguments


def race(source: Source, arguments: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Returns images/s, as such and per core, of every contender in every turn."""
    names = arguments.contenders
    running = {name: batches_of(name, source, arguments) for name in names}
    for batches in running.values():  # starts the processes, fills the cache of files; not counted
        rates_of(batches, arguments)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(arguments.repeats):
        for name in names if number % 2 else reversed(names):
            rates[name].append(rates_of(running[name], arguments))
    for batches in running.values():
        if hasattr(batches, "close"):
            batches.close()
    return rates


def row_of(values: list[tuple[float, float]], beside: list[tuple[float, float]]) -> list[str]:
    """Returns a contender's medians, and its ratios to the other within the turns."""
    cells = [f"{statistics.median(kind):,.0f}" for kind in zip(*values, strict=True)]
    for kind in range(2):
        ratios = [one[kind] / other[kind] for one, other in zip(values, beside, strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    return cells


def main() -> None:
    """Measures in turns and prints the table."""
    arguments = parse_arguments()
    source = open_source(arguments.name, split="train", data_dir=arguments.data_dir)
    with contextlib.ExitStack() as stack:
        if arguments.longer_side:
            source = stack.enter_context(
                enlarged(source, longer_side=arguments.longer_side, images=arguments.images)
            )
        kilobytes = statistics.mean(len(source[index].image) for index in range(50)) / 1000
        rates = race(source, arguments)
        shown = {
            name: differences(source, name, arguments.image_size)
            for name in arguments.contenders
            if name in OWN
        }
    kind = f"{arguments.workers} processes" if arguments.workers else f"{arguments.threads} threads"
    print(f"{processor()}, {usable_cores()} usable cores, Python {platform.python_version()}")
    print(
        f"{arguments.name}, files of {kilobytes:.0f} kB, {arguments.image_size} px, "
        f"batch {arguments.batch_size}, {kind}, RandAugment {arguments.randaugment or 'off'}, "
        f"{arguments.repeats} turns of {arguments.steps * arguments.batch_size} images\n"
    )
    rows = []
    for name, values in rates.items():
        off = shown.get(name)
        off_by = "" if off is None else f"{off.mean():.2f} / {off.max():.2f}"
        rows.append([name, *row_of(values, rates[arguments.beside]), off_by])
    ratio = f"/ {arguments.beside}"
    print(columns(["", "images/s", "per core", ratio, f"{ratio} per core", "off by"], rows))
    print("\noff by: levels of 255 from exact decoding, mean over images / most of an image")


if __name__ == "__main__":
    main()
