"""Time of a training step of A-ViT on live rows, against masked steps and the dense model's.

    python benchmarks/live_training.py
    python benchmarks/live_training.py --model avit_small_patch16_224 --batch_size 64 --share 0.5
    python benchmarks/live_training.py --dtype bfloat16 --batch_size 256        # on an accelerator

Weights and images are made so that a stated share of the dense GMACs is live; the step is the
trainer's own, with a learning rate too small to change that. All take turns in one process, in a
new random order each turn; what to read are the paired ratios. "Share of the ideal" is how much of
the time that halting could save at most, at the dense step's speed, it does save:
`share * dense / live`.

Before anything is timed, live and masked steps have to give the same loss and gradient norm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

import jax
import numpy as np

from avit_jax import config as configs
from avit_jax.data.mix import MEAN, STD
from avit_jax.runtime.device_mesh import make_mesh, shard_batch
from avit_jax.runtime.environment import environment, start_again_prepared
from avit_jax.runtime.paired_timing import race
from avit_jax.runtime.tables import columns
from avit_jax.training.optimization import Optimization

TOTAL_STEPS = 10_000
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # relative, of loss and gradient norm


def config_of(name: str, args: argparse.Namespace, **train: str):
    """A model's config for steps that change next to nothing."""
    config = configs.base(model=name)
    config.model.dtype = args.dtype
    config.train.update(batch_size=args.batch_size, **train)
    config.optim.update(learning_rate=1e-12, warmup=0.0)
    config.log.every = 1
    return config


class Contender:
    """A step of one config, with parameters that are given."""

    def __init__(self, config, params, batch: dict[str, np.ndarray]):
        mesh = make_mesh()
        optimization = Optimization(
            configs.Settings.of(config), configs.make_model(config), TOTAL_STEPS
        )
        self.state = optimization.init_state(mesh)
        if params is not None:
            self.state = self.state.replace(params=jax.device_put(params))
        self.batch, self.number = shard_batch(batch, mesh), 0
        self.stepping = optimization.stepping(mesh)

    def step(self) -> dict[str, jax.Array]:
        """Make one, and wait for it."""
        self.state, averages = self.stepping.advance(self.state, self.number, self.batch)
        self.state, averages = self.stepping.settle(self.state, averages)
        self.number += 1
        return jax.block_until_ready(averages)

    def take_the_rows_it_needs(self) -> None:
        """As a training does at an evaluation."""
        self.state = self.stepping.fit(self.state)


def make(args: argparse.Namespace) -> tuple[dict[str, Contender], float]:
    """All that race, and the share of the dense GMACs that is live."""
    live = config_of(args.model, args, rows="live")
    live.method.kl_reading = "halting"
    masked = config_of(args.model, args)
    masked.method.kl_reading = "halting"
    model = configs.make_model(live)
    params, images = model.synthetic(args.share, args.batch_size)
    batch = {
        "image": 255 * (images * np.float32(STD) + np.float32(MEAN)).astype(np.float32),
        "label": np.arange(args.batch_size, dtype=np.int32) % model.shape.num_classes,
        "substituted": np.zeros(args.batch_size, bool),
    }
    contenders = {
        "dense": Contender(config_of(args.model.replace("avit", "deit"), args), None, batch),
        "masked": Contender(masked, params, batch),
        "live": Contender(live, params, batch),
    }
    told = {name: contender.step() for name, contender in contenders.items()}
    contenders["live"].take_the_rows_it_needs()
    told["live"] = contenders["live"].step()
    for name in ("loss", "grad_norm"):
        ours, theirs = float(told["live"][name]), float(told["masked"][name])
        print(f"{name}: masked {theirs:.6g}, live rows {ours:.6g}")
        if not abs(ours - theirs) <= TOLERANCE[args.dtype] * abs(theirs):
            sys.exit("a step on live rows is not the masked one")
    return contenders, float(told["live"]["gmacs"]) / model.dense_gmacs()


def main() -> None:
    """Races the steps and prints what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="avit_tiny_patch16_224", help="an A-ViT on DeiT")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.64, help="of the dense GMACs")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    start_again_prepared([sys.executable, *sys.argv])
    print(json.dumps(environment(["jax", "flax", "optax"]), indent=2), flush=True)
    contenders, share = make(args)
    timings = race({name: one.step for name, one in contenders.items()}, turns=args.turns)
    rows = contenders["live"].stepping.sizes.share
    print(
        f"\n{args.model}, batch {args.batch_size}, {args.dtype}: {share:.3f} of the dense GMACs "
        f"live, {rows:.3f} of all rows run, {args.turns} turns"
    )
    table, dense = [], np.asarray(timings["dense"].wall)
    for name, timing in timings.items():
        ratio = dense / np.asarray(timing.wall)
        low, high = np.quantile(ratio, [0.25, 0.75])
        ideal = f"{share * np.median(ratio):.2f}" if name != "dense" else ""
        table.append(
            (
                name,
                f"{1e3 * statistics.median(timing.wall):.0f}",
                f"{np.median(ratio):.2f} ({low:.2f}-{high:.2f})",
                ideal,
            )
        )
    print(columns(["step", "ms", "dense / it (quartiles)", "share of the ideal"], table))


if __name__ == "__main__":
    main()
