"""States to save, and damage to what was saved."""

import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P


@struct.dataclass
class State:
    params: dict
    optimizer: optax.OptState
    key: jax.Array
    epoch: int


def make_state(value: float = 0.0, *, sharding: NamedSharding | None = None) -> State:
    if sharding is None:
        sharding = mesh_sharding((1, 1))
    replicated = NamedSharding(sharding.mesh, P())
    params = {
        "kernel": jax.device_put(value + jnp.arange(64.0).reshape(8, 8), sharding),
        "bias": jax.device_put(jnp.full(5, value, jnp.bfloat16), replicated),
    }
    return State(
        params=params,
        optimizer=jax.device_put(optax.adamw(1e-3).init(params), replicated),
        key=jax.device_put(jax.random.key(int(value), impl="rbg"), replicated),
        epoch=2**62 + int(value),
    )


def mesh_sharding(shape: tuple[int, int], *, spec: P | None = None) -> NamedSharding:
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(shape, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)
    return NamedSharding(mesh, P("fsdp") if spec is None else spec)


def assert_same(found: State, expected: State) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert type(found.epoch) is int
    assert found.epoch == expected.epoch
    assert found.key.dtype == expected.key.dtype
    bare = [jax.random.key_data(state.key) for state in (found, expected)]
    np.testing.assert_array_equal(*bare)
    chex.assert_trees_all_equal(found.params, expected.params)
    chex.assert_trees_all_equal_dtypes(found.params, expected.params)
    chex.assert_trees_all_equal(found.optimizer, expected.optimizer)


def data_files(directory) -> list[str]:
    return [
        os.path.relpath(os.path.join(parent, name), directory)
        for parent, _, names in os.walk(directory)
        for name in names
        if os.path.getsize(os.path.join(parent, name)) > 0
    ]


def flip_byte(path) -> None:
    with open(path, "r+b") as file:
        position = os.path.getsize(path) // 2
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))
