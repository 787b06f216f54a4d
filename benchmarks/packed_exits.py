"""What it brings that tokens leave within the exits of a cascade, over exits that mask them.

    python benchmarks/packed_exits.py dvt_avit_deit_tiny_128 --gate_center 3

Both are compact execution and give the same answers: images leave between exits in either. Weights
are fresh and every image goes through all exits, so that the halting of tokens is all that differs;
`--gate_center` says how much of it there is (higher: less). Both take turns in one process.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

import avit_jax
from avit_jax.methods.dvt import exit_sizes
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.paired_timing import race, speedup
from avit_jax.runtime.tables import columns

MASKED, PACKED = "masked exits", "packed exits"


def main() -> None:
    """Print one line for each of both ways."""
    options = _options()
    gates = {"gate_scale": options.gate_scale, "gate_center": options.gate_center}
    model = avit_jax.create_model(options.model, method={"inner": gates})
    params = model.init(jax.random.key(0))
    side = model.shape.image_size
    images = np.random.default_rng(0).normal(size=(options.batch_size, side, side, 3))
    images = jax.numpy.asarray(images, "float32")

    plan = model.default_plan(options.batch_size, platform=jax.default_backend())
    default = PACKED if plan.packed_exits else MASKED
    plans = exit_sizes.candidates(model, {"default": plan})
    plans[default] = plans.pop("default")
    ways, seconds, gmacs = {}, {}, {}
    for name, one in plans.items():
        began = time.monotonic()
        predict = model.compile(
            params,
            batch_size=options.batch_size,
            execution="compact",
            plan=one,
            mesh=make_mesh(devices=jax.devices()[:1]),
        )
        output = jax.block_until_ready(predict(images))
        seconds[name] = time.monotonic() - began
        gmacs[name] = float(np.mean(model.gmacs(output)))
        ways[name] = lambda predict=predict: predict(images).logits
    timings = race(ways, turns=options.turns)
    ratio = speedup(timings[MASKED], timings[PACKED])
    print(
        f"{options.model}, {model.shape.dtype}, batch {options.batch_size}, {options.turns} turns, "
        f"{jax.devices()[0].device_kind}: {gmacs[PACKED] / model.dense_gmacs():.2f} of the GMACs "
        f"live; packed exits are {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) times as "
        f"fast as masked ones. {default.capitalize()} are the default."
    )
    rows = [
        [name, f"{1e3 * timings[name].median():.0f}", f"{seconds[name]:.0f}"] for name in timings
    ]
    print(columns(["", "ms a batch", "compile s"], rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a named cascade of A-ViTs")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--gate_scale", type=float, default=3.0)
    parser.add_argument("--gate_center", type=float, default=0.5)
    parser.add_argument("--turns", type=int, default=11)
    return parser.parse_args()


if __name__ == "__main__":
    main()
