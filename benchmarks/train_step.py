"""Time of one training step: dense model, masked A-ViT, and PyTorch's ViT of the same size.

    python benchmarks/train_step.py --model tiny --image_size 224 --batch_size 16
    pip install -e '.[benchmark]' && python benchmarks/train_step.py --peers eager,compile
    python benchmarks/train_step.py --contenders deit_small_patch16_224,t2t_vit_14

A step is: normalise uint8 images, forward, cross-entropy with label smoothing, backward, AdamW.

  dense    this package's plain vision transformer, through the trainer's own step
  avit     masked A-ViT on the same backbone, likewise
  eager    transformers' ViT from a config with the same sizes, AdamW fused or foreach, whichever
           is faster here
  compile  the same under `torch.compile`, with the same optimiser; "graphs" (with CUDA graphs),
           "autotune" and timm's network ("timm_eager", "timm_compile", ...) likewise

`--contenders` races named models of this package instead, each against the first.

All take turns in one process on the same batch, in a new random order each turn, so that none
always follows the same other. What to read are the *paired* ratios, taken within a turn, because
the speed of a shared machine drifts between turns: the median, with the range to say how far to
trust it. Wall time suffers from what else runs
on the machine, CPU time (user and system, all threads) hardly does, so both are given.

Both sides get the same number of threads, and the same allocator settings where the C library is
glibc: by default it returns large temporaries to the kernel after every step, and the page faults
cost more than some of the differences measured here. The settings must stand in the environment
before a process starts, so the script starts itself once more with them. OpenMP threads are told
to sleep when idle; otherwise PyTorch's would take the cores from XLA's between their turns.

The state is donated, and our side also computes what the trainer logs (gradient norm, check for
finite numbers). Before anything is printed three things are checked: all contenders have the same
number of parameters, every parameter gets a gradient, and every loss fell.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence

import jax
import numpy as np
import optax

from avit_jax import config as configs
from avit_jax.benchmark import peer_training, peers
from avit_jax.benchmark.peer_training import Contender
from avit_jax.benchmark.peers import PEERS
from avit_jax.models.vit import ViTShape
from avit_jax.runtime.device_mesh import make_mesh, shard_batch
from avit_jax.runtime.environment import environment, start_again_prepared
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.paired_timing import Timing, race
from avit_jax.runtime.tables import columns
from avit_jax.training.optimization import Optimization

NAMES = {"dense": "deit_{model}_patch16_224", "avit": "avit_{model}_patch16_224"}
TOTAL_STEPS = 10_000
WEIGHT_DECAY, LABEL_SMOOTHING = 0.05, 0.1


def random_batch(shape: ViTShape, batch_size: int) -> dict[str, np.ndarray]:
    """A batch as the input pipeline delivers it."""
    rng = np.random.default_rng(0)
    size = (batch_size, shape.image_size, shape.image_size, 3)
    return {
        "image": rng.integers(0, 256, size, np.uint8),
        "label": rng.integers(0, shape.num_classes, batch_size).astype(np.int32),
        "substituted": np.zeros(batch_size, bool),
    }


def make_config(name: str, args: argparse.Namespace, batch_size: int):
    """The config of a named model of this package, at the sizes to be measured."""
    config = configs.base(model=name)
    config.model.update(image_size=args.image_size, dtype=args.dtype)
    config.train.update(batch_size=batch_size, label_smoothing=LABEL_SMOOTHING)
    config.optim.weight_decay = WEIGHT_DECAY
    config.optim.warmup = 0.0
    config.log.every = 1  # so that the averages are those of the step
    return config


def ours(config, batch: dict[str, np.ndarray]) -> Contender:
    """This package's step, jitted as in the trainer."""
    model, mesh = configs.make_model(config), make_mesh()
    optimization = Optimization(configs.Settings.of(config), model, TOTAL_STEPS)
    step = optimization.compiled_step(mesh)
    state = optimization.init_state(mesh)
    rows = shard_batch(batch, mesh)

    averages = {}

    def run() -> None:
        nonlocal state, averages
        state, averages = step(state, rows)
        jax.block_until_ready(state)

    run()
    moments = jax.tree.leaves(optax.tree_utils.tree_get(state.opt_state, "mu"))
    trained = sum(jax.tree.leaves(model.trainable(state.params)))
    if len(moments) != trained or not all(m.any() for m in moments):
        sys.exit(f"a parameter of {config.model.name} got no gradient")
    return Contender(run, lambda: float(averages["loss"]), model.num_params())


def timings_of(contenders: dict[str, Contender], turns: int) -> dict[str, Timing]:
    """Times of all contenders, taking turns; ends the program if a loss did not fall."""
    for contender in contenders.values():
        contender.run()
    first = {name: contender.loss() for name, contender in contenders.items()}
    timings = race({name: one.run for name, one in contenders.items()}, turns=turns)
    for name, contender in contenders.items():
        last = contender.loss()
        print(f"{name}: loss {first[name]:.3f} -> {last:.3f}")
        if not last < first[name]:
            sys.exit(f"the loss of {name} did not fall")
    return timings


def spread(values: Sequence[float], digits: int) -> str:
    """Median and range, as text."""
    middle, least, most = (
        f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({least}-{most})"


def compare(args: argparse.Namespace, batch_size: int) -> dict[str, Timing]:
    """Build, check and time all contenders at one batch size, and print two tables."""
    made = {label: make_config(name, args, batch_size) for label, name in args.names.items()}
    first = made[next(iter(made))]
    shape = configs.make_model(first).shape
    batch = random_batch(shape, batch_size)
    contenders = {name: ours(config, batch) for name, config in made.items()}
    optim = first.optim
    learning_rate = optim.learning_rate * batch_size / optim.reference_batch_size
    for kind in args.peers:
        contenders[kind] = peer_training.peer(
            kind,
            shape,
            batch,
            platform=jax.default_backend(),
            learning_rate=learning_rate,
            weight_decay=WEIGHT_DECAY,
            label_smoothing=LABEL_SMOOTHING,
        )
    counts = {name: contender.num_params for name, contender in contenders.items()}
    if not args.contenders and len(set(counts.values())) > 1:
        sys.exit(f"not the same model, numbers of parameters differ: {counts}")

    timings = timings_of(contenders, args.repeats)
    print(
        f"\n{args.image_size} px, batch {batch_size}, {args.dtype}, {args.repeats} turns: "
        "median (range)"
    )
    rows = [
        (
            name,
            f"{counts[name]:,}",
            spread([seconds * 1e3 for seconds in timing.wall], 0),
            spread([seconds * 1e3 for seconds in timing.cpu], 0),
            f"{batch_size / timing.median():.1f}",
        )
        for name, timing in timings.items()
    ]
    print(columns(["step", "parameters", "wall ms", "CPU ms", "images/s"], rows))
    rows = [
        (
            f"{a} / {b}",
            *(
                spread(np.divide(ours, theirs), 2)
                for ours, theirs in zip(timings[a], timings[b], strict=True)
            ),
        )
        for a, b in pairs(args)
    ]
    print(columns(["paired ratio", "wall", "CPU"], rows), end="\n\n", flush=True)
    return timings


def pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Names of the contenders whose times are divided: numerator and denominator."""
    ours = list(args.names)
    return [(other, ours[0]) for other in ours[1:]] + [
        (name, peer) for peer in args.peers for name in ours
    ]


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("tiny", "small"), default="tiny")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, nargs="+", default=[16])
    parser.add_argument("--repeats", type=int, default=12, help="turns measured")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", default="eager,compile", help="comma-separated; '' for none")
    parser.add_argument("--contenders", default="", help="names of models instead, with commas")
    parser.add_argument("--json", help="file for all samples")
    args = parser.parse_args()
    args.contenders = [name for name in args.contenders.split(",") if name]
    args.names = {label: name.format(model=args.model) for label, name in NAMES.items()}
    args.peers = [name for name in args.peers.split(",") if name]
    if args.contenders:
        args.names, args.peers = {name: name for name in args.contenders}, []
    if not set(args.peers) <= set(PEERS):
        parser.error(f"--peers takes {', '.join(PEERS)}, not {', '.join(args.peers)}")
    start_again_prepared([sys.executable, *sys.argv])
    found = peers.usable(jax.default_backend())
    missing = [name for name in args.peers if name not in found]
    if missing:
        print(f"left out, because PyTorch, its library or its GPU is missing: {', '.join(missing)}")
        args.peers = [name for name in args.peers if name in found]

    packages = ["jax", "flax", "optax", *peers.packages(args.peers)]
    surroundings = environment(packages)
    print(json.dumps(surroundings, indent=2), flush=True)
    results = {size: compare(args, size) for size in args.batch_size}
    if args.json:
        seconds = {
            str(size): {name: timing._asdict() for name, timing in result.items()}
            for size, result in results.items()
        }
        arguments = {name: value for name, value in vars(args).items() if name != "json"}
        write_json_atomic(args.json, {"environment": surroundings, **arguments, "seconds": seconds})


if __name__ == "__main__":
    main()
