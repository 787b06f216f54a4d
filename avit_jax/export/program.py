"""A model's inference as one StableHLO program for CPUs, GPUs and TPUs, through `jax.export`.

The program holds a branch for CPUs and one for accelerators, because sizes that are fast on the one
are slow on the other; the compiler keeps the branch of the machine it compiles for. Weights are an
argument and not constants: then they are a file of their own that anything can read and exchange.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, export, lax

from avit_jax.data.mix import normalise
from avit_jax.execution.execution import Execution
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import per_image
from avit_jax.models.functional import Params

logger = logging.getLogger(__name__)

PLATFORMS = ("cpu", "cuda", "tpu")


def export_program(
    model: Model, *, execution: Execution, batch_size: int, plans: Mapping[str, Plan]
) -> export.Exported:
    """The program `(weights, images, exists) -> answers` of one device.

    Args:
        model: that answers.
        execution: whose program; one without a fixed batch takes any number of images.
        batch_size: images of a program with a fixed batch.
        plans: static sizes, see `plans_for`.

    Returns:
        A program of `weights` (as `named` makes them), uint8 `images` `[B, H, W, 3]` and `exists`
        `[B]` bool (False for images that only fill up a batch); for its answers see `answers`.
    """
    shape = model.shape
    batch = batch_size if execution.fixed_batch else export.symbolic_shape("batch")[0]
    arguments = (
        named(model.abstract_params()),
        jax.ShapeDtypeStruct((batch, shape.image_size, shape.image_size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((batch,), bool),
    )

    def branch(platform: str) -> Callable[..., dict[str, Array]]:
        def trace(weights: dict[str, Array], images: Array, exists: Array) -> dict[str, Array]:
            params = unflatten_dict(weights, sep="/")
            return answers(model, params, images, exists, execution=execution, plan=plans[platform])

        return trace

    def program(weights: dict[str, Array], images: Array, exists: Array) -> dict[str, Array]:
        return lax.platform_dependent(
            weights, images, exists, cpu=branch("cpu"), default=branch("gpu")
        )

    return export.export(jax.jit(program), platforms=PLATFORMS)(*arguments)


def answers(
    model: Model, params: Params, images: Array, exists: Array, *, execution: Execution, plan: Plan
) -> dict[str, Array]:
    """What an exported program returns, the images first everywhere.

    Args:
        model: that answers.
        params: its parameters.
        images: uint8 `[B, H, W, 3]`.
        exists: `[B]` bool.
        execution: whose program.
        plan: static sizes.

    Returns:
        `logits` `[B, C]`; `depth` `[B, N]`, layers that each token was executed for; `gmacs` `[B]`,
        multiply-adds of each image in units of 1e9; `dropped` `[B]` (capped only), live tokens that
        found no place, over all layers.
    """
    if not execution.fixed_batch:  # then groups of a fixed size are of no use either
        plan = dataclasses.replace(plan, dense_images=None)
    arguments = (params, normalise(images), exists)
    output = model.program(execution, plan)(*arguments)
    if execution.fallback is not None:
        # Nobody stands outside of an exported program to ask the other execution.
        fallback = model.program(execution.fallback, plan)
        output = lax.cond(
            (output.fits | ~exists).all(),
            lambda: output.replace(fits=None),
            lambda: fallback(*arguments),
        )
    said = per_image(model, output)
    result = {
        "logits": output.logits,
        "depth": said.token_depth.astype(jnp.float32),
        "gmacs": said.gmacs,
    }
    return result if said.dropped is None else result | {"dropped": said.dropped}


def plans_for(model: Model, batch_size: int, chosen: Plan | None) -> dict[str, Plan]:
    """The plans of both branches, "cpu" and "gpu" (which TPUs take as well).

    Args:
        model: that answers.
        batch_size: images of the program.
        chosen: for the kind of machine that exports; the other kind gets default sizes, and its
            places (`capacities`, `static_rows`), which belong to the model.
    """
    plans = {name: model.default_plan(batch_size, platform=name) for name in ("cpu", "gpu")}
    if chosen is not None:
        here = "cpu" if jax.default_backend() == "cpu" else "gpu"
        # Rows are those of one device, and the program is of one.
        rows = chosen.static_rows if jax.device_count() == 1 else None
        chosen = dataclasses.replace(chosen, static_rows=rows)
        places = {"capacities": chosen.capacities, "static_rows": rows}
        plans = {
            name: chosen if name == here else dataclasses.replace(plan, **places)
            for name, plan in plans.items()
        }
    # Every platform traces both branches, and only some have these kernels.
    none = {"fused_attention": False, "ragged_attention": False}
    plans = {name: dataclasses.replace(plan, **none) for name, plan in plans.items()}
    for plan in plans.values():
        plan.check(num_tokens=model.shape.num_tokens, depth=model.shape.depth)
    return plans


def named(params: Params) -> dict[str, Array]:
    """Parameters under their paths, such as `blocks/mlp/fc1/kernel`."""
    return flatten_dict(params, sep="/")
