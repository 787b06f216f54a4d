"""Time of one training step in one process and in two, which exchange gradients as hosts do.

    python benchmarks/processes.py
    python benchmarks/processes.py --model avit_micro_patch4_32 --batch_size 128 --repeats 7

Two real processes of `jax.distributed` on this machine, each with a core of its own, against one
process on one core and one process whose two devices share two cores. All make the same steps of
the same batches, several times, one kind after the other in turns; what to read are the ratios,
which are taken within a turn, because the speed of a shared machine drifts between turns. The step
is the trainer's own on the digits' sizes. Gradients go through shared memory and sockets here, so
this shows what several processes cost by themselves and nothing of a network.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

KINDS = {  # processes, devices of each
    "1 process, 1 core": (1, 1),
    "1 process, 2 cores": (1, 2),
    "2 processes, a core each": (2, 1),
}
WARM_UP = 3  # steps that are not timed; the first compiles
FIRST = "1 process, 1 core"  # that the others are compared with


def work(arguments: argparse.Namespace) -> None:
    """Make steps in this process, which may be one of two; process 0 prints milliseconds."""
    import jax
    import numpy as np

    from avit_jax import config as configs
    from avit_jax.runtime import joining
    from avit_jax.runtime.device_mesh import make_mesh, shard_batch
    from avit_jax.training.optimization import Optimization

    joining.initialise_processes(os.environ)
    config = configs.base(model=arguments.model, method={"gate_center": 0.0})
    config.model.num_classes = 10
    config.train.batch_size = arguments.batch_size
    model = configs.make_model(config)
    optimization = Optimization(configs.Settings.of(config), model, total_steps=10_000)
    mesh = make_mesh()
    state, step = optimization.init_state(mesh), optimization.compiled_step(mesh)
    rows, side = arguments.batch_size // jax.process_count(), model.shape.image_size
    rng = np.random.default_rng(jax.process_index())
    times = []
    for number in range(WARM_UP + arguments.steps):
        batch = {
            "image": rng.integers(0, 256, (rows, side, side, 3), np.uint8),
            "label": rng.integers(0, 10, rows).astype(np.int32),
            "substituted": np.zeros(rows, bool),
        }
        placed = shard_batch(batch, mesh)
        began = time.perf_counter()
        state, averages = step(state, placed, None)
        jax.block_until_ready((state, averages))
        if number >= WARM_UP:
            times.append(1e3 * (time.perf_counter() - began))
    if jax.process_index() == 0:
        print(json.dumps(statistics.median(times)), flush=True)
    joining.leave()


def step_time(kind: str, arguments: argparse.Namespace) -> float:
    """Milliseconds of a step, the median of those that process 0 makes."""
    processes, devices = KINDS[kind]
    cores = sorted(os.sched_getaffinity(0))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    started = []
    for number in range(processes):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "NPROC": str(devices),
            "OMP_NUM_THREADS": str(devices),
        }
        if processes > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(number),
            }
        own = ",".join(map(str, cores[number * devices : (number + 1) * devices]))
        command = ["taskset", "-c", own, sys.executable, __file__, "--worker"]
        command += ["--model", arguments.model, "--steps", str(arguments.steps)]
        command += ["--batch_size", str(arguments.batch_size)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, text=True))
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"processes.py: a worker of {kind!r} failed; its message is above.")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="avit_micro_patch4_32")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30, help="timed in each process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("processes.py: this process may use one core only: give it two.")
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(arguments.repeats):
        order = list(KINDS) if turn % 2 == 0 else list(KINDS)[::-1]
        for kind in order:
            times[kind].append(step_time(kind, arguments))
            print(f"turn {turn + 1}: {kind}: {times[kind][-1]:.1f} ms", flush=True)
    for kind, found in times.items():
        ratios = [first / own for first, own in zip(times[FIRST], found, strict=True)]
        print(
            f"{kind:26} {statistics.median(found):8.1f} ms   {statistics.median(ratios):.2f} x as "
            f"fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
