"""How often a batch finds no room in static execution, from live counts of a run's photographs.

    TFDS_DATA_DIR=DIR python benchmarks/overflow.py runs/avit_tiny_imagenette

Every image of the evaluation split runs once, masked, with the run's weights, which gives its live
tokens in each layer. The rest is drawn from these counts, in NumPy. The images are parted at random
into two halves, again and again. From one half sizes are measured, as

  one batch   what a predictor does with the first batch that it sees
  4 batches   what `--mode calibrate` does
  half        all images of the half, for comparison

and batches are resampled from the other half, with replacement. *No room* is the share of batches
that want more rows than there are in some layer, which masked execution would answer. *One class*
is the same where all images of a batch are of one class, as in folders that are read in order.
*Rows* are those of all layers over the live ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from avit_jax import config as configs
from avit_jax.calibration.fastest_plan import BATCHES
from avit_jax.data.mix import normalise
from avit_jax.execution.row_capacities import row_capacities
from avit_jax.experiment import Experiment
from avit_jax.runtime.device_mesh import platform_of
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.tables import columns

WAYS = {"one batch": 1, f"{BATCHES} batches": BATCHES, "half": None}  # batches to measure sizes on


class Counts(NamedTuple):
    """What all images of a split want.

    Attributes:
        rows: `[K, images]` rows in each of K buffers.
        labels: `[images]`.
        most: rows that an image can want in a buffer.
        may_rise: whether a buffer may want more than the one before.
    """

    rows: np.ndarray
    labels: np.ndarray
    most: int
    may_rise: bool


class Shares(NamedTuple):
    """Of resampled batches without room, mixed and of one class; rows over live rows."""

    no_room: float
    one_class: float
    rows_over_live: float


def measured(experiment: Experiment) -> Counts:
    """Live counts of every image of the evaluation split."""
    params, model = experiment.weights().params, experiment.model
    masked = model.on(platform_of(experiment.mesh))
    work = jax.jit(
        lambda params, images: model.static_work(masked.apply(params, normalise(images)).usage)
    )
    rows, labels = [], []
    for batch in experiment.eval_batches():
        valid = np.asarray(batch["valid"])
        rows.append(np.asarray(work(params, batch["image"]))[:, valid])
        labels.append(np.asarray(batch["label"])[valid])
    most = model.static_most
    return Counts(np.concatenate(rows, 1), np.concatenate(labels), most, model.tokens_return)


def simulate(
    counts: Counts, batch: int, batches: int | None, *, draws: int, halves: int, seed: int
) -> Shares:
    """Shares of `draws` resampled batches, `draws / halves` for each of so many partings.

    Args:
        counts: of all images.
        batch: images of a batch on one device.
        batches: to measure sizes on, all images of a half if unset.
        draws: batches in all.
        halves: partings of the images.
        seed: of everything random.
    """
    generator, images = np.random.default_rng(seed), counts.rows.shape[1]
    shares = []
    for _ in range(halves):
        order = generator.permutation(images)
        known, others = order[: images // 2], order[images // 2 :]
        known = known[: len(known) if batches is None else batch * batches]
        capacities = row_capacities(
            counts.rows[:, known], batch, counts.most, may_rise=counts.may_rise
        )
        of_class = [others[counts.labels[others] == label] for label in np.unique(counts.labels)]
        mixed, alike = [], []
        for _ in range(draws // halves):
            members = of_class[generator.integers(len(of_class))]
            for overflows, pool in ((mixed, others), (alike, members)):
                wanted = counts.rows[:, generator.choice(pool, batch)].sum(1)
                overflows.append((wanted > capacities).any())
        live = counts.rows[:, others].mean(1).sum() * batch
        shares.append((np.mean(mixed), np.mean(alike), sum(capacities) / live))
    return Shares(*map(float, np.mean(shares, 0)))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", type=Path, help="of a run whose method has static execution")
    parser.add_argument("--batch_sizes", default="64,256,1024", help="images on one device")
    parser.add_argument("--draws", type=int, default=10_000, help="batches of each size")
    parser.add_argument("--halves", type=int, default=100, help="random partings of the images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    experiment = Experiment(configs.read(arguments.workdir / "config.json"), arguments.workdir)
    counts = measured(experiment)
    print(
        f"{counts.rows.shape[1]} images that want at most {counts.most} rows; live in each buffer, "
        "mean (standard deviation): "
        + ", ".join(f"{row.mean():.1f} ({row.std():.1f})" for row in counts.rows)
    )
    rows, results = [], []
    for batch in map(int, arguments.batch_sizes.split(",")):
        for way, batches in WAYS.items():
            found = simulate(
                counts,
                batch,
                batches,
                draws=arguments.draws,
                halves=arguments.halves,
                seed=arguments.seed,
            )
            results.append({"batch": batch, "sizes_from": way, **found._asdict()})
            rows.append(
                (str(batch), way, f"{found.no_room:.2%}", f"{found.one_class:.2%}",
                 f"{found.rows_over_live:.3f}")
            )  # fmt: skip
    print(columns(["batch", "sizes from", "no room", "one class", "rows / live"], rows))
    if arguments.json:
        write_json_atomic(arguments.json, {"images": counts.rows.shape[1], "results": results})


if __name__ == "__main__":
    main()
