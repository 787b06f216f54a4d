"""Compile programs for a GPU or TPU that is not there, and say what the compiler made of them.

    pip install -e '.[gpu]' && python benchmarks/compile_for.py gpu
    pip install -e '.[tpu]' && python benchmarks/compile_for.py tpu --programs dense,masked

In an environment each, because one process holds one of the plug-ins; Python 3.12 (JAX 0.11 or
later). Nothing runs, so nothing is measured but the time of compiling: what is printed is read from
the compiled program. Images are taken to halt as in a synthetic profile.

  loops        whose trip count depends on data, and conditionals; on a GPU each stops the queue
  kernels      that one run starts, loops of known length counted as often as they run
  scores       whether a buffer [images, heads, tokens, tokens] is left
  temporaries  megabytes on one device
  cycles       millions, the estimate of a TPU's compiler, without gathers and kernels of our own
  GMACs        run over those that are live (or dense ones, for dense programs)
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Of libtpu: there is no TPU to ask.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")

import jax
import jax.numpy as jnp
from jax.experimental import topologies

import avit_jax
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.executions import find
from avit_jax.losses import classification
from avit_jax.methods.avit import synthetic
from avit_jax.methods.base import Model
from avit_jax.models import costs
from avit_jax.runtime.tables import columns
from avit_jax.types import Usage

# An H100, as XLA describes devices; sizes from NVIDIA's data sheet and CUDA's tables.
H100 = """gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32
shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
clock_rate_ghz: 1.98 device_memory_size: 84942979072 shared_memory_per_block_optin: 232448
cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
registers_per_block_limit: 65536 } platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 } device_description_str: "NVIDIA H100 80GB HBM3"
"""
KERNELS = ("fusion", "custom-call", "copy", "scatter", "sort", "convolution", "dot", "gather")


def device_of(target: str) -> jax.Device:
    """One device of an absent machine."""
    if target == "tpu":
        return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]
    import jax_plugins.xla_cuda13  # noqa: F401 - registers the plug-in

    described = topologies.get_topology_desc(
        "", platform="cuda", target_config=H100, topology="1x1x1"
    )
    return described.devices[0]


def abstract(tree: Any, device: jax.Device) -> Any:
    """Arguments of a program for the device: shapes and dtypes."""
    place = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )


def usage_of(model: Model, share: float, batch_size: int) -> tuple[Usage, ...]:
    """What runs of images that need a share of the dense GMACs."""
    depth = synthetic.patch_depths(model, share, batch_size)
    return (Usage(tokens=synthetic.tokens_of(model, depth)),)


def inference(
    model: Model, name: str, usage: tuple[Usage, ...], batch_size: int, target: str
) -> tuple[Callable, float | None]:
    """A program, and GMACs that it runs over those that it needs."""
    execution = find(name)
    plan = model.default_plan(batch_size, platform=target)
    if execution.sized is not None:
        plan = execution.sized(model, usage, plan, batch_size)
    needed = costs.inference_gmacs(model.shape, usage[0]).sum()
    if name == "dense":
        needed = costs.dense_inference_gmacs(model.shape) * batch_size
    ran = executed_gmacs(execution, model.on(target), usage, plan)
    return model.program(execution, plan), ran / needed


def gradients(model: Model, target: str) -> Callable:
    """Loss and gradients of a training step without its optimiser."""
    model = model.on(target)

    def loss(params: Any, images: jax.Array, exists: jax.Array) -> jax.Array:
        del exists
        output = model.apply(params, images, train=True)
        labels = jnp.arange(len(images)) % model.shape.num_classes
        targets = classification.soft_targets(labels, model.shape.num_classes, smoothing=0.1)
        task = classification.cross_entropy(output.logits, targets).mean()
        return task + sum(output.penalties.values())

    return jax.value_and_grad(loss)


def compiled(
    function: Callable, model: Model, batch_size: int, target: str
) -> tuple[str, float, Any]:
    """Text of the compiled program, seconds to compile it, and its memory."""
    device, side = device_of(target), model.shape.image_size
    arguments = (
        abstract(model.abstract_params(), device),
        *abstract(
            (
                jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.float32),
                jax.ShapeDtypeStruct((batch_size,), bool),
            ),
            device,
        ),
    )
    began = time.perf_counter()
    options = {"xla_gpu_autotune_level": 0} if target == "gpu" else {}
    program = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    return program.as_text(), time.perf_counter() - began, program.memory_analysis()


def read(text: str) -> tuple[int, int, int]:
    """Loops and conditionals that depend on data; kernels and estimated cycles of one run."""
    blocks, name, entry = {}, None, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) [({].*\{$", line)
        if head:
            name = head[2]
            blocks[name], entry = [], name if head[1] else entry
        elif name is not None:
            blocks[name].append(line)
    waits = kernels = cycles = 0
    stack = [(entry, 1)]
    while stack:
        name, times = stack.pop()
        for line in blocks.get(name, ()):
            operation = re.search(r"(?<=[\]}) ])([a-z][\w\-]*)\(", line.partition(" = ")[2])
            kind = operation[1] if operation else ""
            estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
            cycles += times * int(estimate[1]) if estimate else 0
            if kind == "while":
                trips = trip_count(line, blocks)
                waits += trips is None
                body = re.search(r"body=%?([\w.\-]+)", line)[1]
                stack.append((body, times * (trips or 1)))
            elif kind == "conditional":
                waits += 1
            elif kind in KERNELS:
                kernels += times
    return waits, kernels, cycles


def trip_count(line: str, blocks: dict[str, list[str]]) -> int | None:
    """How often a loop runs; `None` where that depends on data."""
    said = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', line)
    if said:
        return int(said[1])
    # A TPU's compiler does not say it: a counter that is held against one constant, and no more.
    condition = blocks.get(re.search(r"condition=%?([\w.\-]+)", line)[1], [])
    text = "\n".join(condition)
    for called in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text):
        text += "\n" + "\n".join(blocks.get(called, []))
    constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", text)
    counts = len(constants) == 1 and "direction=LT" in text
    return (
        int(constants[0]) if counts and not re.search(r"pred\[\]\S* (and|or|xor)\(", text) else None
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=("gpu", "tpu"))
    parser.add_argument("--models", default="avit_small_patch16_224,avit_tiny_patch16_224")
    parser.add_argument("--batch_sizes", default="256")
    parser.add_argument("--programs", default="dense,masked,static,gradients")
    parser.add_argument("--share", type=float, help="of the dense GMACs; the paper's if unset")
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models.split(","):
        model = avit_jax.create_model(name, dtype=arguments.dtype)
        share = arguments.share or model.synthetic_profiles()["paper"]
        for batch_size in map(int, arguments.batch_sizes.split(",")):
            usage = usage_of(model, share, batch_size)
            for kind in arguments.programs.split(","):
                ratio = None
                if kind == "gradients":
                    function = gradients(model, arguments.target)
                else:
                    function, ratio = inference(model, kind, usage, batch_size, arguments.target)
                text, seconds, memory = compiled(function, model, batch_size, arguments.target)
                waits, kernels, cycles = read(text)
                tokens, heads = model.shape.num_tokens, model.shape.num_heads
                scores = re.search(rf"\[{batch_size},{heads},{tokens},{tokens}\]", text)
                rows.append(
                    (name, str(batch_size), kind, str(waits), str(kernels),
                     "yes" if scores else "no", f"{memory.temp_size_in_bytes / 1e6:.0f}",
                     f"{cycles / 1e6:.1f}" if cycles else "",
                     "" if ratio is None else f"{ratio:.3f}", f"{seconds:.0f}")
                )  # fmt: skip
                print(" ".join(rows[-1]), flush=True)
    head = ["model", "batch", "program", "loops", "kernels", "scores", "temporaries MB", "cycles"]
    print(columns([*head, "GMACs", "compile s"], rows))


if __name__ == "__main__":
    main()
