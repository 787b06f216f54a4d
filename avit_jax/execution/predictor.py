"""`model.compile(...)`: model, weights and batch size as one compiled function of images."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from avit_jax.errors import UserError
from avit_jax.execution.dense import dense
from avit_jax.execution.plan import Plan
from avit_jax.models import attention, functional
from avit_jax.runtime.compilation_cache import cache_hits
from avit_jax.runtime.device_mesh import AXES, make_mesh, replicated
from avit_jax.types import Output

if TYPE_CHECKING:
    from avit_jax.methods.base import Model

EXECUTIONS = ("dense", "masked", "compact", "budget")
_LAYERED = ("dropped", "confidence")  # of aux: images on the second axis


class Predictor:
    """Compiled inference: `predictor(images) -> Output`, always the same program.

    Attributes:
        model: that predicts.
        batch_size: images that one call takes at most, over all devices.
        execution: "dense", "masked", "compact" or "budget".
        plan: static sizes of the program.
        compile_seconds: tracing and compilation, or fetching the compiled program.
        compile_cached: whether it came from the cache of compiled programs on disk.
    """

    def __init__(
        self,
        model: Model,
        params: functional.Params,
        *,
        batch_size: int,
        execution: str = "compact",
        plan: Plan | None = None,
        mesh: Mesh | None = None,
    ):
        """See `Model.compile`."""
        if execution not in EXECUTIONS:
            raise UserError(
                f"execution {execution!r} is unknown: compile() takes {', '.join(EXECUTIONS)}."
            )
        mesh = mesh or make_mesh()
        if batch_size < 1 or batch_size % mesh.size:
            raise UserError(
                f"batch_size {batch_size} does not divide among {mesh.size} devices: "
                f"write a multiple of {mesh.size}."
            )
        shape = model.shape
        local = batch_size // mesh.size
        self.plan = plan or model.default_plan(local)
        self.plan.check(num_tokens=shape.num_tokens, depth=shape.depth, num_heads=shape.num_heads)
        if self.plan.fused_attention and not shape.attention_can_be_fused:
            raise UserError(
                f"the plan wants fused attention, but cuDNN has none for {shape.dtype} and "
                f"{shape.embed_dim // shape.num_heads} channels per head on "
                f"{jax.default_backend()}: use bfloat16 on an NVIDIA GPU, or leave "
                "config.inference.fused_attention out."
            )
        self.model, self.batch_size, self.execution = model, batch_size, execution
        self._images = NamedSharding(mesh, P(AXES))
        self._params = jax.device_put(params, replicated(mesh))
        program = functools.partial(run, model, plan=self.plan, execution=execution)
        size = (batch_size, shape.image_size, shape.image_size, 3)
        arguments = (
            jax.ShapeDtypeStruct(size, jnp.float32, sharding=self._images),
            jax.ShapeDtypeStruct((batch_size,), bool, sharding=self._images),
        )
        began = time.perf_counter()
        # Gathers and scatters stay inside each device's shard: no communication.
        sharded = jax.shard_map(
            program,
            mesh=mesh,
            in_specs=(P(), P(AXES), P(AXES)),
            out_specs=_per_image_specs(program, params, local, size),
            check_vma=False,
        )
        lowered = jax.jit(sharded).lower(self._params, *arguments)
        with cache_hits() as hits:
            self._program = lowered.compile()
        self.compile_seconds = time.perf_counter() - began
        self.compile_cached = bool(hits)

    def put(self, images: Any) -> tuple[Array, Array]:
        """Images `[b <= batch_size, H, W, 3]` as the program's arguments, on the devices."""
        size = self.model.shape.image_size
        if images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise UserError(
                f"images have shape {tuple(images.shape)}, but this model takes "
                f"[B, {size}, {size}, 3]: resize them or create the model with another image_size."
            )
        count = images.shape[0]
        if count > self.batch_size:
            raise UserError(
                f"{count} images are more than the batch_size {self.batch_size} that this program "
                "was compiled for: pass fewer, or compile for more."
            )
        if count < self.batch_size:
            padding = ((0, self.batch_size - count), (0, 0), (0, 0), (0, 0))
            images = np.pad(np.asarray(images, np.float32), padding)
        exists = np.arange(self.batch_size) < count
        return (
            jax.device_put(jnp.asarray(images, jnp.float32), self._images),
            jax.device_put(exists, self._images),
        )

    def run(self, images: Array, exists: Array) -> Output:
        """The bare program on arguments from `put`; what a benchmark times."""
        return self._program(self._params, images, exists)

    def __call__(self, images: Any) -> Output:
        """Answers for normalised images `[b <= batch_size, H, W, 3]`; a smaller batch is filled up.

        Returns:
            `logits` `[b, C]`, `usage`, and per-image arrays in `aux` (`depth` `[b, N]`: layers that
            each token was executed for).
        """
        count = images.shape[0]
        output = self.run(*self.put(images))
        if count == self.batch_size:
            return output
        return _map_images(
            output, lambda leaf, axis: jax.lax.slice_in_dim(leaf, 0, count, axis=axis)
        )

    def memory(self) -> int:
        """Bytes on one device: arguments (weights and images), answers and temporaries.

        By the compiler's own account, which lays them out in advance.
        """
        sizes = self._program.memory_analysis()
        return (
            sizes.argument_size_in_bytes
            + sizes.output_size_in_bytes
            - sizes.alias_size_in_bytes
            + sizes.temp_size_in_bytes
        )


def run(
    model: Model,
    params: functional.Params,
    images: Array,
    exists: Array,
    *,
    plan: Plan,
    execution: str,
) -> Output:
    """The program of one device: images `[b, H, W, 3]` in groups of the plan's size."""
    with attention.fused(plan.fused_attention):
        return _run(model, params, images, exists, plan=plan, execution=execution)


def _run(
    model: Model,
    params: functional.Params,
    images: Array,
    exists: Array,
    *,
    plan: Plan,
    execution: str,
) -> Output:
    network = functional.bind(model.build, params)
    if execution == "dense":
        return _per_image(dense(network, images, plan))
    if execution == "masked":
        return _per_image(model.apply(params, images))
    method = model.compact if execution == "compact" else model.budget
    groups = -(-images.shape[0] // plan.images)
    if groups == 1:
        return _per_image(method(network, images, exists, plan))
    size = -(-images.shape[0] // groups)
    missing = groups * size - images.shape[0]

    def cut(rows: Array) -> Array:
        padding = ((0, missing), *(((0, 0),) * (rows.ndim - 1)))
        return jnp.pad(rows, padding).reshape(groups, size, *rows.shape[1:])

    outputs = jax.lax.map(
        lambda part: _per_image(method(network, *part, plan)), (cut(images), cut(exists))
    )

    def join(leaf: Array, axis: int) -> Array:
        leaf = jnp.moveaxis(leaf, 0, axis)
        leaf = leaf.reshape(*leaf.shape[:axis], groups * size, *leaf.shape[axis + 2 :])
        return jax.lax.slice_in_dim(leaf, 0, images.shape[0], axis=axis)

    return _map_images(outputs, join)


def _per_image(output: Output) -> Output:
    """Without what belongs to no image (penalties, metrics) and without training's records.

    `depth` becomes what was executed, whatever a method counts under that name in training.
    """
    kept = {name: output.aux[name] for name in (*_LAYERED, "exit") if name in output.aux}
    depth = output.usage[0].tokens.sum(0, dtype=jnp.float32)
    return output.replace(penalties={}, metrics={}, aux=kept | {"depth": depth})


def _map_images(output: Output, function: Any) -> Output:
    """`function(leaf, axis of the images)` on every array of an `Output` of `_per_image`."""
    return Output(
        logits=function(output.logits, 0),
        usage=jax.tree.map(lambda leaf: function(leaf, 1), output.usage),
        exits=None if output.exits is None else function(output.exits, 1),
        aux={
            name: function(leaf, 1 if name in _LAYERED else 0) for name, leaf in output.aux.items()
        },
    )


def _per_image_specs(program: Any, params: functional.Params, local: int, size: tuple) -> Output:
    abstract = jax.eval_shape(
        program,
        params,
        jax.ShapeDtypeStruct((local, *size[1:]), jnp.float32),
        jax.ShapeDtypeStruct((local,), bool),
    )
    return _map_images(abstract, lambda leaf, axis: P(*([None] * axis), AXES))
