"""Meshes over the eight simulated devices, and where arrays lie on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from avit_jax.errors import UserError
from avit_jax.runtime import device_mesh


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [((-1, 1), (8, 1)), ((-1, 4), (2, 4)), ((1, 8), (1, 8)), ((4, 2), (4, 2)), ((-1, 8), (1, 8))],
)
def test_a_mesh_uses_every_device_once(asked, sizes):
    mesh = device_mesh.make_mesh(*asked)
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.devices.shape == sizes
    assert {device.id for device in mesh.devices.flat} == {device.id for device in jax.devices()}


def test_a_mesh_over_some_of_the_devices_uses_those():
    some = jax.devices()[2:6]
    mesh = device_mesh.make_mesh(fsdp=2, devices=some)
    assert mesh.devices.shape == (2, 2)
    assert {device.id for device in mesh.devices.flat} == {device.id for device in some}


@pytest.mark.parametrize("sizes", [(3, 1), (-1, 3), (8, 8), (-1, 16), (0, 1), (-1, 0), (-8, -1)])
def test_sizes_that_do_not_use_up_the_devices_are_refused_with_the_number_of_devices(sizes):
    with pytest.raises(UserError, match=r"there are 8: set config\.mesh\.data to -1") as refusal:
        device_mesh.make_mesh(*sizes)
    assert f"a mesh of data={sizes[0]} x fsdp={sizes[1]} does not" in str(refusal.value)


def test_a_batch_is_split_over_both_axes_in_the_order_of_its_rows():
    mesh = device_mesh.make_mesh(2, 4)
    rows = np.arange(16 * 3).reshape(16, 3)
    batch = device_mesh.shard_batch({"label": rows[:, 0], "image": rows}, mesh)
    np.testing.assert_array_equal(batch["image"], rows)
    assert batch["image"].sharding == device_mesh.batch_sharding(mesh)
    shards = sorted(batch["image"].addressable_shards, key=lambda shard: shard.index[0].start)
    assert [shard.data.shape for shard in shards] == [(2, 3)] * 8
    assert [shard.device for shard in shards] == list(mesh.devices.flat)


def test_replicated_arrays_lie_whole_on_every_device():
    mesh = device_mesh.make_mesh(4, 2)
    array = jax.device_put(jnp.arange(6.0), device_mesh.replicated(mesh))
    assert [shard.data.shape for shard in array.addressable_shards] == [(6,)] * 8


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((12, 192, 576), P(None, None, "fsdp")),  # the largest dimension
        ((512, 128), P("fsdp")),
        ((12, 768, 190), P(None, "fsdp")),
        ((1001, 128), P(None, "fsdp")),  # the largest that four divides
        ((128, 128), P("fsdp")),  # just large enough; the first of equals
        ((127, 129), P()),  # nothing divides
        ((64, 64), P()),  # too small to be worth it
        ((1000,), P()),
        ((), P()),
    ],
)
def test_the_largest_divisible_dimension_of_a_large_array_is_split(shape, spec):
    mesh = device_mesh.make_mesh(2, 4)
    place = device_mesh.state_shardings({"x": jax.ShapeDtypeStruct(shape, jnp.float32)}, mesh)["x"]
    assert place.is_equivalent_to(jax.NamedSharding(mesh, spec), len(shape))


def test_nothing_is_split_where_the_fsdp_axis_has_one_device():
    mesh = device_mesh.make_mesh(8, 1)
    place = device_mesh.state_shardings(jax.ShapeDtypeStruct((1024, 1024), jnp.float32), mesh)
    assert place.is_fully_replicated


def test_whole_arrays_are_put_where_a_state_has_its_own():
    mesh = device_mesh.make_mesh(2, 4)
    tree = {"a": [np.arange(3.0), np.arange(2.0**16).reshape(256, 256)], "b": jnp.int32(7)}
    placed = device_mesh.put_on(mesh, tree)
    jax.tree.map(np.testing.assert_array_equal, placed, tree)
    assert jax.tree.map(lambda leaf: leaf.sharding, placed) == device_mesh.state_shardings(
        tree, mesh
    )


def test_shardings_keep_the_structure_of_the_tree():
    mesh = device_mesh.make_mesh(1, 8)
    tree = {"a": [jnp.zeros(3), jnp.zeros((256, 256))], "b": jnp.int32(0)}
    shardings = device_mesh.state_shardings(tree, mesh)
    placed = jax.device_put(tree, shardings)
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
    assert placed["a"][1].addressable_shards[0].data.shape == (32, 256)
