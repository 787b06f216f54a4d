"""What leaving early is worth in time: a cascade at its budgets against its finest network alone.

    python -m avit_jax.main --workdir runs/dvt_digits --mode calibrate --budget 0.2,0.3,0.5
    python benchmarks/cascade_speed.py runs/dvt_digits --dense runs/deit_digits

Every stored operating point of the run, in the fastest exact execution that there is here, takes
turns with the best dense program of the last exit's network by itself, which takes nothing over:
this is what a cascade has to be faster than. All answer the same images of the evaluation split,
one batch after the other, on one device. *Ideal* is the ratio of the multiply-adds that inference
needs, *share* how much of it arrives. `--dense` names a run of that network, for its accuracy; its
speed is that of any weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import avit_jax
from avit_jax import config as configs
from avit_jax.benchmark.contenders import dense_groups
from avit_jax.checkpoints.operating_points import FILE
from avit_jax.data.mix import normalise
from avit_jax.execution.predictor import Predictor
from avit_jax.experiment import Experiment
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.paired_timing import race, speedup
from avit_jax.runtime.tables import columns


class Answered(NamedTuple):
    """What a program makes of all images.

    Attributes:
        top1: share of right answers, 0..1.
        gmacs: that inference needs, per image, in 1e9.
        exits: share of the images that reach each exit.
    """

    top1: float
    gmacs: float
    exits: list[float]


def main() -> None:
    """See the module."""
    options = _options()
    experiment = Experiment(configs.read(options.workdir / "config.json"), options.workdir)
    pixels, labels = experiment.measured_images(options.images)
    images = np.asarray(normalise(pixels))
    batches = np.split(images, range(options.batch_size, len(images), options.batch_size))
    size = {"batch_size": options.batch_size, "mesh": make_mesh(devices=jax.devices()[:1])}

    names = options.points or stored(options.workdir)
    contenders, found = {}, {}
    for name in names:
        run = avit_jax.load_run(options.workdir, operating_point=name)
        program = run.model.compile(run.params, **size)
        contenders[name] = all_batches(program, batches)
        found[name] = answered(program, run.model.stages, batches, labels)
    plain = experiment.model.plain
    if options.dense:
        params = avit_jax.load_run(options.dense).params
    else:
        params = plain.init(jax.random.key(0))
    plan = plain.default_plan(options.batch_size)
    for group in dense_groups(plan, options.batch_size, jax.default_backend()):
        program = plain.compile(
            params, execution="dense", plan=dataclasses.replace(plan, dense_images=group), **size
        )
        contenders[f"dense of {group}"] = all_batches(program, batches)
    top1_dense = answered(program, plain.stages, batches, labels).top1 if options.dense else None

    times = race(contenders, turns=options.turns)
    dense = min(set(contenders) - set(names), key=lambda name: times[name].median())
    whole = costs.dense_inference_gmacs(plain.shape)
    points = []
    for name in names:
        ratio, ideal = speedup(times[dense], times[name]), whole / found[name].gmacs
        points.append(
            {
                "name": name,
                **found[name]._asdict(),
                "images_per_second": len(images) / times[name].median(),
                "speedup": ratio.median,
                "speedup_quartiles": [ratio.low, ratio.high],
                "ideal": ideal,
                "share_of_ideal": ratio.median / ideal,
            }
        )
    result = {
        "device": jax.devices()[0].device_kind,
        "dtype": plain.shape.dtype,
        "images": len(images),
        "batch_size": options.batch_size,
        "turns": options.turns,
        "dense": dense,
        "dense_gmacs": whole,
        "dense_top1": top1_dense,
        "dense_images_per_second": len(images) / times[dense].median(),
        "points": points,
    }
    file = options.workdir / "cascade_speed.json"
    write_json_atomic(file, result)
    print(table(result))
    print(f"written: {file}")


def stored(workdir: Path) -> list[str]:
    """Names of the operating points of a run, by rising cost."""
    return [point["name"] for point in json.loads((workdir / FILE).read_text())["points"]]


def all_batches(program: Predictor, batches: list[np.ndarray]) -> Callable[[], list[jax.Array]]:
    """A function that answers all of them, one after the other."""
    return lambda: [program(batch).logits for batch in batches]


def answered(
    program: Predictor, stages: tuple, batches: list[np.ndarray], labels: np.ndarray
) -> Answered:
    """What a program answers, and what it needs for it."""
    right, gmacs, reached = [], [], []
    for batch, true in zip(
        batches, np.split(labels, np.cumsum([*map(len, batches)])[:-1]), strict=True
    ):
        output = program(batch)
        usage = jax.tree.map(np.asarray, output.usage)
        right.append(np.asarray(output.logits).argmax(-1) == true)
        gmacs.append(costs.stages_gmacs(stages, usage, costs.inference_gmacs))
        reached.append([used.tokens.any((0, 2)) for used in usage])
    exits = np.concatenate(reached, 1).mean(1).tolist()
    return Answered(float(np.concatenate(right).mean()), float(np.concatenate(gmacs).mean()), exits)


def table(result: dict) -> str:
    """The points for people."""
    rows = [
        [
            point["name"],
            f"{point['gmacs']:.4g}",
            f"{point['top1']:.2%}",
            " ".join(f"{share:.0%}" for share in point["exits"]),
            f"{point['images_per_second']:.1f}",
            "{:.2f} ({:.2f}-{:.2f})".format(point["speedup"], *point["speedup_quartiles"]),
            f"{point['ideal']:.2f}",
            f"{point['share_of_ideal']:.2f}",
        ]
        for point in result["points"]
    ]
    top1 = result["dense_top1"]
    rows.append(
        [
            result["dense"],
            f"{result['dense_gmacs']:.4g}",
            "-" if top1 is None else f"{top1:.2%}",
            "-",
            f"{result['dense_images_per_second']:.1f}",
            *["1.00"] * 3,
        ]
    )
    header = ["point", "GMACs", "top-1", "reach exit", "images/s", "speed-up", "ideal", "share"]
    return columns(header, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", type=Path, help="of a cascade with operating points")
    parser.add_argument("--points", nargs="+", help="names of them; all by default")
    parser.add_argument("--dense", type=Path, help="workdir of the finest network alone")
    parser.add_argument("--images", type=int, default=512, help="of the evaluation split")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--turns", type=int, default=11)
    return parser.parse_args()


if __name__ == "__main__":
    main()
