"""Compile programs for a GPU or TPU that is not there, and say what the compiler made of them.

    pip install -e '.[forecast-gpu]' && python benchmarks/compile_for.py gpu
    pip install -e '.[forecast-tpu]' && python benchmarks/compile_for.py v5e --programs dense,masked
    python benchmarks/compile_for.py v5e --models dvt_deit_small --reach 0.15,0.05 --programs static
    python benchmarks/compile_for.py gpu --set pos_embed=rope_2d method.spread=circle

In an environment each, because one process holds one of the plug-ins; Python 3.12 (JAX 0.11 or
later). "gpu" is an H100; TPUs are v4, v5e, v5p and v6e. Nothing runs, so nothing is measured but
the time of compiling: what is printed is read from the compiled program. Images are taken to halt
as in a synthetic profile of the published rule, whatever `--set` says of the method, and of a
cascade so many reach its exits as `--reach` says.

Programs are executions of inference, "gradients" (loss and gradients of a masked training step) and
"live" (of one on live rows).

  loops        whose trip count depends on data, and conditionals; on a GPU each stops the queue
  kernels      that one run starts, loops of known length counted as often as they run
  scores       whether a buffer [images, heads, tokens, tokens] is left
  temporaries  megabytes on one device
  cycles       millions, the estimate of a TPU's compiler, without gathers and kernels of our own
  GMACs        run over those that are live (or dense ones, for dense programs)
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import avit_jax
from avit_jax.errors import UserError
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.executions import find
from avit_jax.forecast.absent_machines import TPUS, compile_for, platform_of
from avit_jax.forecast.compiled_text import work_of
from avit_jax.losses import classification
from avit_jax.methods.base import Model
from avit_jax.methods.forward import RowCapacities
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.runtime.tables import columns
from avit_jax.training.row_sizes import RowSizes
from avit_jax.types import Usage

TOGETHER = 32  # images that are measured at once


def settings_of(assignments: list[str]) -> dict[str, Any]:
    """What `create_model` takes for `pos_embed=rope_2d` and `method.spread=circle`.

    Values are literals of Python, or text.
    """
    settings: dict[str, Any] = {"method": {}}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not (name and equals):
            raise UserError(f"--set {assignment}: write NAME=VALUE, such as pos_embed=rope_2d.")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        section, _, of_method = name.partition(".")
        if section == "method":
            settings["method"][of_method] = value
        else:
            settings[name] = value
    return settings


def usage_of(
    model: Model, share: float | None, batch_size: int, reach: tuple[float, ...] = ()
) -> tuple[Usage, ...]:
    """What runs of images that need a share of the dense GMACs; the paper's share if unset.

    Measured on the CPU, in masked execution and float32; without a profile everything runs, but for
    the exits of a cascade, which the first images of a batch reach in these shares.
    """
    if reach and len(reach) != len(model.stages) - 1:
        raise UserError(f"--reach {reach}: write a share for each exit but the first.")
    share = share or model.synthetic_profiles().get("paper")
    if share is None:
        shapes = [(shape.depth, batch_size, shape.num_tokens) for shape in model.stages]
        counts = [round(batch_size * part) for part in (1.0, *(reach or [1.0] * len(shapes[1:])))]
        here = [np.arange(batch_size)[:, None] < count for count in counts]
        return tuple(
            Usage(tokens=np.broadcast_to(goes_on, shape))
            for goes_on, shape in zip(here, shapes, strict=True)
        )
    params, images = model.synthetic(share, batch_size)
    apply = jax.jit(lambda params, images: model.apply(params, images).usage)
    parts = [apply(params, images[i : i + TOGETHER]) for i in range(0, batch_size, TOGETHER)]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *parts)


def learner(model: Model) -> Model:
    """The model with the reading of the prior that learns on live rows."""
    settings = dataclasses.replace(model.settings, kl_reading="halting")
    return dataclasses.replace(model, settings=settings)


def inference(
    model: Model, name: str, usage: tuple[Usage, ...], batch_size: int, platform: str
) -> tuple[Callable, float | None]:
    """A program, and GMACs that it runs over those that it needs."""
    execution = find(name)
    plan = model.default_plan(batch_size, platform=platform)
    if execution.sized is not None:
        plan = execution.sized(model, usage, plan, batch_size)
    needed = costs.stages_gmacs(model.stages, usage, costs.inference_gmacs).sum()
    if name == "dense":
        needed = sum(map(costs.dense_inference_gmacs, model.stages)) * batch_size
    ran = executed_gmacs(execution, model.on(platform), usage, plan)
    return model.program(execution, plan), ran / needed


def gradients(model: Model, platform: str, rows: RowCapacities | None = None) -> Callable:
    """Loss and gradients of a training step without its optimiser, on all rows or live ones."""
    model = model.on(platform)

    def loss(params: Any, images: jax.Array, exists: jax.Array) -> jax.Array:
        del exists
        key = jax.random.key(0) if model.draws else None
        output = model.apply(params, images, train=True, key=key, rows=rows)
        labels = jnp.arange(len(images)) % model.shape.num_classes
        targets = classification.soft_targets(labels, model.shape.num_classes, smoothing=0.1)
        task = classification.cross_entropy(output.logits, targets).mean()
        return task + sum(output.penalties.values())

    return jax.value_and_grad(loss)


def live_rows(model: Model, usage: tuple[Usage, ...], batch_size: int) -> RowCapacities:
    """The rows that a training takes after an evaluation which saw such a batch."""
    shape = model.shape
    everything = RowSizes.everything(
        images=batch_size, depth=shape.depth, num_tokens=shape.num_tokens
    )
    fitted = everything.fitted(np.asarray(usage[0].tokens).sum((1, 2)))
    mesh = make_mesh(devices=jax.devices()[:1])
    return RowCapacities(capacities=fitted.capacities, mesh=mesh)


def inputs(model: Model, batch_size: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Images of a batch, and which of them exist."""
    side = model.shape.image_size
    return (
        jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.float32),
        jax.ShapeDtypeStruct((batch_size,), bool),
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=("gpu", *TPUS))
    parser.add_argument("--models", default="avit_small_patch16_224,avit_tiny_patch16_224")
    parser.add_argument("--batch_sizes", default="256")
    parser.add_argument("--programs", default="dense,masked,static,gradients,live")
    parser.add_argument("--share", type=float, help="of the dense GMACs; the paper's if unset")
    parser.add_argument("--reach", default="", help="shares that reach each exit but the first")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--set", nargs="*", default=[], help="NAME=VALUE, method.NAME=VALUE")
    arguments = parser.parse_args()
    reach = tuple(map(float, filter(None, arguments.reach.split(","))))
    settings = settings_of(arguments.set)
    rows, platform = [], platform_of(arguments.target)
    for name in arguments.models.split(","):
        model = avit_jax.create_model(name, **{"dtype": arguments.dtype, **settings})
        measured = avit_jax.create_model(name, **{**settings, "method": {}})
        for batch_size in map(int, arguments.batch_sizes.split(",")):
            usage = usage_of(measured, arguments.share, batch_size, reach)
            for kind in arguments.programs.split(","):
                ratio = None
                if kind == "gradients":
                    function = gradients(model, platform)
                elif kind == "live":
                    rows_of_training = live_rows(model, usage, batch_size)
                    function = gradients(learner(model), platform, rows_of_training)
                else:
                    function, ratio = inference(model, kind, usage, batch_size, platform)
                text, seconds, memory = compile_for(
                    arguments.target,
                    function,
                    model.abstract_params(),
                    *inputs(model, batch_size),
                )
                waits, kernels, cycles = work_of(text)
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
    try:
        main()
    except UserError as error:
        raise SystemExit(f"compile_for.py: {error}") from None
