"""Checkpoints: exact, complete, and refused where they do not fit."""

import json
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from tests.checkpoints.states import assert_same, make_state, mesh_sharding


def test_nothing_saved_restores_nothing(checkpoints):
    assert checkpoints.restore(make_state()) is None
    assert checkpoints.steps() == []


def test_state_comes_back_exactly(checkpoints):
    state = make_state(3)
    checkpoints.save(7, state, extra={"top1": 0.1 + 0.2})
    step, found = checkpoints.restore(make_state())
    assert step == 7
    assert_same(found, state)
    assert checkpoints.extra(7) == {"top1": 0.1 + 0.2}


def test_numpy_leaves_and_python_numbers_come_back(checkpoints):
    state = {
        "array": np.arange(3, dtype=np.int16),
        "scalar": np.float32(0.1),
        "rate": 0.1,
        "on": True,
    }
    checkpoints.save(1, state)
    _, found = checkpoints.restore(state)
    np.testing.assert_array_equal(found["array"], state["array"])
    assert found["array"].dtype == np.int16
    assert found["scalar"] == state["scalar"]
    assert found["rate"] == 0.1
    assert found["on"] is True


def test_newest_is_restored_unless_a_step_is_named(copy_of_two):
    checkpoints, _ = copy_of_two
    assert checkpoints.restore(make_state())[0] == 2
    step, found = checkpoints.restore(make_state(), step=1)
    assert step == 1
    assert_same(found, make_state(1))
    with pytest.raises(UserError, match=r"no complete checkpoint of step 5 .* one of \[1, 2\]"):
        checkpoints.restore(make_state(), step=5)


@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (1, 8)])
def test_restores_onto_another_mesh(checkpoints, shape):
    state = make_state(3, sharding=mesh_sharding((2, 4)))
    checkpoints.save(1, state)
    sharding = mesh_sharding(shape, spec=P("data", "fsdp"))
    _, found = checkpoints.restore(make_state(sharding=sharding))
    assert_same(found, state)
    assert found.params["kernel"].sharding.is_equivalent_to(sharding, 2)


def test_abstract_target_is_enough(copy_of_two):
    checkpoints, _ = copy_of_two

    def abstract(leaf):
        if isinstance(leaf, int):
            return leaf
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

    _, found = checkpoints.restore(jax.tree.map(abstract, make_state()))
    assert_same(found, make_state(2))


def test_saved_state_may_be_donated_and_numpy_changed_at_once(checkpoints):
    grow = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = {"big": jnp.zeros((1024, 1024)), "small": jnp.zeros(3), "host": np.zeros(1 << 20)}
    device = {name: state[name] for name in ("big", "small")}
    checkpoints.save(1, state)
    for _ in range(5):
        device = grow(device)
    state["host"][:] = 9
    jax.block_until_ready(device)
    target = {**device, "host": state["host"]}
    _, found = checkpoints.restore(target)
    for name in state:
        np.testing.assert_array_equal(found[name], np.zeros(target[name].shape))


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10, 11):
        checkpoints.save(step, {"x": jnp.full(2, step)})
    checkpoints.close()
    assert checkpoints.steps() == [10, 11]
    assert sorted(os.listdir(tmp_path)) == ["10", "11"]


def test_keeping_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)


def test_saving_the_restored_step_again_keeps_it(copy_of_two):
    checkpoints, directory = copy_of_two
    checkpoints.restore(make_state())
    before = (directory / "2" / "manifest.json").stat().st_mtime_ns
    checkpoints.save(2, make_state(2))
    checkpoints.wait()
    assert (directory / "2" / "manifest.json").stat().st_mtime_ns == before


def test_continuing_from_an_earlier_step_supersedes_later_checkpoints(copy_of_two):
    checkpoints, directory = copy_of_two
    checkpoints.save(3, make_state(3))
    checkpoints.restore(make_state(), step=1)
    checkpoints.save(2, make_state(20))
    step, found = checkpoints.restore(make_state())
    assert step == 2
    assert_same(found, make_state(20))
    assert sorted(os.listdir(directory)) == ["1", "2", "2.superseded", "3.superseded"]


def test_another_tree_or_shape_is_refused_with_the_differing_paths(copy_of_two):
    checkpoints, _ = copy_of_two
    target = make_state()
    params = {"kernel": target.params["kernel"][:4], "gate": target.params["bias"]}
    with pytest.raises(UserError) as refused:
        checkpoints.restore(target.replace(params=params))
    message = str(refused.value)
    assert "params/kernel is float32[8,8] in the checkpoint and float32[4,8] here" in message
    assert "params/gate is missing in the checkpoint" in message
    assert "params/bias is bfloat16[5] in the checkpoint and not in the model here" in message


def test_a_target_without_sharding_is_refused(copy_of_two):
    checkpoints, _ = copy_of_two
    with pytest.raises(ValueError, match="key of the target has no sharding"):
        checkpoints.restore(make_state().replace(key=jax.ShapeDtypeStruct((), jnp.uint32)))


@pytest.mark.parametrize("leaf", [2**63, "text", np.zeros((0, 3))])
def test_leaves_that_would_not_come_back_are_refused(checkpoints, leaf):
    with pytest.raises(ValueError, match=r"^run/leaf .*cannot be saved"):
        checkpoints.save(1, {"run": {"leaf": leaf}})


def test_the_manifest_says_what_wrote_it(two_saved):
    manifest = json.loads((two_saved / "2" / "manifest.json").read_text())
    assert manifest["step"] == 2
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["leaves"]["params/kernel"] == "float32[8,8]"
    assert set(manifest["files"]) == {
        os.path.relpath(os.path.join(parent, name), two_saved / "2")
        for parent, _, names in os.walk(two_saved / "2")
        for name in names
        if name != "manifest.json"
    }


def test_a_named_part_is_read_alone(copy_of_two):
    checkpoints, _ = copy_of_two
    step, whole = checkpoints.restore(make_state())
    part = {"params": {"bias": make_state().params["bias"]}}
    found_step, found = checkpoints.restore(part, partial=True)
    assert found_step == step
    chex.assert_trees_all_equal(found, {"params": {"bias": whole.params["bias"]}})
    with pytest.raises(UserError, match="params/scale"):
        checkpoints.restore({"params": {"scale": part["params"]["bias"]}}, partial=True)
