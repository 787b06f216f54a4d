"""Checkpoints: exact, complete or ignored, and never silently damaged."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError


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


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A directory with checkpoints of steps 1 and 2."""
    directory = tmp_path_factory.mktemp("two")
    opened = Checkpoints(directory)
    opened.save(1, make_state(1))
    opened.save(2, make_state(2))
    opened.close()
    return directory


@pytest.fixture
def copy_of_two(two_saved, tmp_path):
    """As `two_saved`, with files of its own: (checkpoints, directory)."""
    directory = tmp_path / "copy"
    shutil.copytree(two_saved, directory)
    opened = Checkpoints(directory)
    yield opened, directory
    opened.close()


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


def kinds_of_files() -> list[str]:
    """Parts of file names that tell what kind of file a checkpoint's file is."""
    return ["manifest.json", "_CHECKPOINT_METADATA", "_METADATA", "_sharding", "ocdbt", "/d/"]


@pytest.mark.parametrize("kind", kinds_of_files())
def test_a_flipped_byte_is_found_and_the_previous_checkpoint_used(copy_of_two, kind, caplog):
    checkpoints, directory = copy_of_two
    name = next(name for name in data_files(directory / "2") if kind in name)
    flip_byte(directory / "2" / name)
    with caplog.at_level(logging.WARNING):
        step, found = checkpoints.restore(make_state())
    assert step == 1
    assert_same(found, make_state(1))
    assert name in caplog.text
    assert sorted(os.listdir(directory)) == ["1", "2.corrupt"]


def test_every_data_file_is_guarded(copy_of_two):
    checkpoints, directory = copy_of_two
    for name in data_files(directory / "2"):
        flip_byte(directory / "2" / name)
        with pytest.raises(UserError, match="step 2 is damaged"):
            checkpoints.restore(make_state(), step=2)
        flip_byte(directory / "2" / name)
    assert checkpoints.restore(make_state(), step=2)[0] == 2


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_truncated_and_missing_files_are_named(copy_of_two, damage, caplog):
    checkpoints, directory = copy_of_two
    name = next(name for name in data_files(directory / "2") if "/d/" in name)
    path = directory / "2" / name
    size = path.stat().st_size
    if damage == "truncated":
        os.truncate(path, size - 1)
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.restore(make_state())[0] == 1
    says = f"has {size - 1} bytes instead of {size}" if damage == "truncated" else "is missing"
    assert f"{name} {says}" in caplog.text


def test_a_damaged_step_can_be_saved_again(copy_of_two):
    checkpoints, directory = copy_of_two
    flip_byte(directory / "2" / "manifest.json")
    assert checkpoints.restore(make_state())[0] == 1
    checkpoints.save(2, make_state(5))
    assert_same(checkpoints.restore(make_state())[1], make_state(5))
    assert (directory / "2.corrupt").exists()


def test_without_a_manifest_a_checkpoint_is_ignored_and_cleared_at_the_next_save(copy_of_two):
    checkpoints, directory = copy_of_two
    (directory / "2" / "manifest.json").unlink()
    (directory / "3.orbax-checkpoint-tmp").mkdir()
    assert checkpoints.steps() == [1]
    assert checkpoints.restore(make_state())[0] == 1
    checkpoints.save(4, make_state(4))
    checkpoints.wait()
    assert sorted(os.listdir(directory)) == ["1", "4"]


def test_only_an_unfinished_checkpoint_counts_as_none(copy_of_two):
    checkpoints, directory = copy_of_two
    for step in (1, 2):
        (directory / str(step) / "manifest.json").unlink()
    assert checkpoints.restore(make_state()) is None


def test_no_sound_checkpoint_left_never_starts_over_silently(copy_of_two):
    checkpoints, directory = copy_of_two
    for step in (1, 2):
        flip_byte(directory / str(step) / "state" / "_METADATA")
    with pytest.raises(UserError, match=r"no checkpoint .* is sound .*2: .*_METADATA .*start over"):
        checkpoints.restore(make_state())
    with pytest.raises(UserError, match=r"1\.corrupt was moved aside"):
        checkpoints.restore(make_state())


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


def test_a_failed_write_is_raised_by_wait_and_leaves_the_others(copy_of_two, monkeypatch):
    checkpoints, _ = copy_of_two

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("avit_jax.checkpoints.manifest.write_json_atomic", full)
        checkpoints.save(3, make_state(3))
        with pytest.raises(RuntimeError, match=r"step 3 could not be written .*No space left"):
            checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(3, make_state(3))
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3]


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


SAVE_FOREVER = """
import sys, jax.numpy as jnp
from avit_jax.checkpoints.store import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range(1, 10_000):
    checkpoints.save(step, {"step": jnp.full((256, 256), step)})
    print(step, flush=True)
"""


def test_killed_while_saving_leaves_a_sound_checkpoint(tmp_path):
    target = {"step": jnp.zeros((256, 256), jnp.int32)}
    for kill_after in (4, 3):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, tmp_path], stdout=subprocess.PIPE, text=True
        )
        # Line n + 1 appears as soon as checkpoint n is complete and n + 1 is being written.
        for _ in range(kill_after):
            started = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        checkpoints = Checkpoints(tmp_path, keep=2)
        step, found = checkpoints.restore(target)
        assert step >= started - 1
        np.testing.assert_array_equal(found["step"], np.full((256, 256), step))
        checkpoints.save(step + 1, target)
        checkpoints.close()
        assert set(os.listdir(tmp_path)) == {str(step), str(step + 1)}
        for left in checkpoints.steps():
            shutil.rmtree(tmp_path / str(left))


def test_a_named_part_is_read_alone(copy_of_two):
    checkpoints, _ = copy_of_two
    step, whole = checkpoints.restore(make_state())
    part = {"params": {"bias": make_state().params["bias"]}}
    found_step, found = checkpoints.restore(part, partial=True)
    assert found_step == step
    chex.assert_trees_all_equal(found, {"params": {"bias": whole.params["bias"]}})
    with pytest.raises(UserError, match="params/scale"):
        checkpoints.restore({"params": {"scale": part["params"]["bias"]}}, partial=True)
