"""A program of one device's images, compiled for a batch that all devices of a mesh share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from avit_jax.execution.execution import Program
from avit_jax.execution.image_groups import map_images
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import AXES, batch_sharding


def compile_on(
    mesh: Mesh, program: Program, *, params: Params, batch_size: int, size: int
) -> jax.stages.Compiled:
    """A function of parameters, images `[B, S, S, 3]` and which of them exist, `[B]`."""
    return (
        traced_on(mesh, program, params=params, batch_size=batch_size, size=size).lower().compile()
    )


def traced_on(
    mesh: Mesh, program: Program, *, params: Params, batch_size: int, size: int
) -> jax.stages.Traced:
    """The same before it is compiled.

    Args:
        mesh: devices, each of which takes an equal part of a batch.
        program: of one device's part.
        params: on all devices; arrays, or their shapes and places.
        batch_size: images B over all devices.
        size: their side S, in pixels.
    """
    images, exists = (batch_size, size, size, 3), (batch_size,)
    local = batch_size // mesh.size
    abstract = jax.eval_shape(
        program,
        params,
        jax.ShapeDtypeStruct((local, *images[1:]), jnp.float32),
        jax.ShapeDtypeStruct((local,), bool),
    )
    # Gathers and scatters stay inside each device's shard: no communication.
    sharded = jax.shard_map(
        program,
        mesh=mesh,
        in_specs=(P(), P(AXES), P(AXES)),
        out_specs=map_images(abstract, lambda leaf, axis: P(*([None] * axis), AXES)),
        check_vma=False,
    )
    place = batch_sharding(mesh)
    return jax.jit(sharded).trace(
        params,
        jax.ShapeDtypeStruct(images, jnp.float32, sharding=place),
        jax.ShapeDtypeStruct(exists, bool, sharding=place),
    )
