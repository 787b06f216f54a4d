"""Where arrays live: a mesh of ('data', 'fsdp'), batches over both, parameters over 'fsdp'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from avit_jax.errors import UserError

AXES = ("data", "fsdp")
SMALLEST_SHARDED = 2**14  # entries; splitting smaller arrays costs more than it saves


def make_mesh(
    data: int = -1, fsdp: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A `data` x `fsdp` mesh over `devices`, by default all devices of all processes.

    `data=-1` takes as many rows as the devices make with `fsdp` columns.

    Raises:
        UserError: the sizes do not use up the devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    rows = count // max(fsdp, 1) if data == -1 else data
    if rows < 1 or fsdp < 1 or rows * fsdp != count:
        raise UserError(
            f"a mesh of data={data} x fsdp={fsdp} does not use up the devices, of which there are "
            f"{count}: set config.mesh.data to -1 and config.mesh.fsdp to a divisor of {count}."
        )
    # Explicit axes would refuse to join a replicated class token to sharded patch tokens.
    return jax.make_mesh((rows, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def refuse_uneven(name: str, size: int) -> None:
    """Raises UserError where a batch, by its setting, does not divide among all devices."""
    devices = jax.device_count()
    if size % devices:
        raise UserError(
            f"config.{name} is {size}, which does not divide among {devices} devices: "
            f"write a multiple of {devices}."
        )


def whole_devices(images: int) -> int:
    """So many images, or the fewest more that divide among all devices."""
    devices = jax.device_count()
    return -(-images // devices) * devices


def platform_of(mesh: Mesh) -> str:
    """What its devices are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis is split over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which every device holds the whole."""
    return NamedSharding(mesh, P())


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """One rule for every array of a state: its largest dimension that 'fsdp' divides is split.

    Args:
        tree: arrays or `ShapeDtypeStruct`s.
        mesh: from `make_mesh`.
    """
    parts = mesh.shape["fsdp"]
    return jax.tree.map(lambda leaf: NamedSharding(mesh, spec_of(leaf.shape, parts)), tree)


def spec_of(shape: Sequence[int], parts: int) -> P:
    """How an array of a state is split over an axis 'fsdp' of so many devices."""
    sizes = [size if size % parts == 0 else 0 for size in shape]
    if parts == 1 or np.prod(shape) < SMALLEST_SHARDED or max(sizes) == 0:
        return P()
    return P(*([None] * int(np.argmax(sizes))), "fsdp")


def abstract_on(mesh: Mesh, shapes: Any) -> Any:
    """A tree of shapes as `ShapeDtypeStruct`s with the shardings of `state_shardings`."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        state_shardings(shapes, mesh),
    )


def put_on(mesh: Mesh, tree: Any) -> Any:
    """Arrays that every process has in full, as global arrays sharded by `state_shardings`."""

    def put(leaf: Any, place: NamedSharding) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(put, tree, state_shardings(tree, mesh))


def on_each_device(
    function: Callable[..., Any], mesh: Mesh, *, inputs: Any, outputs: Any
) -> Callable[..., Any]:
    """A function of each device's own images, which gather and scatter among themselves only.

    Args:
        function: of arrays.
        mesh: whose devices share the images.
        inputs: where each argument has its images, see `images_at`; a pytree prefix.
        outputs: likewise.
    """
    if mesh.size == 1:
        return function
    return jax.shard_map(function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def images_at(axis: int | None) -> P:
    """How an array is split that has the images of a batch on an axis; `None`: it has none."""
    return P() if axis is None else P(*([None] * axis), AXES)


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The rows of a batch that this process has, as its part of global arrays.

    Processes hold consecutive rows, in the order of their numbers.
    """
    return {
        name: jax.make_array_from_process_local_data(batch_sharding(mesh), rows)
        for name, rows in batch.items()
    }
