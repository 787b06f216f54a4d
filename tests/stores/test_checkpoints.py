import jax
import numpy as np
import pytest

from avit_jax.checkpoints import manifest
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from avit_jax.runtime.stores import files_in

STATE = {"a": np.arange(8, dtype=np.float32), "b": {"c": np.float32(3)}}
TARGET = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
        np.shape(leaf), np.float32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ),
    STATE,
)


def _saved(folder, *steps):
    checkpoints = Checkpoints(folder, keep=2)
    for step in map(np.float32, steps):
        checkpoints.save(int(step), jax.tree.map(step.__add__, STATE))
    checkpoints.close()


def _restored(folder):
    checkpoints = Checkpoints(folder)
    step, state = checkpoints.restore(TARGET)
    checkpoints.close()
    return step, float(state["b"]["c"])


@pytest.mark.fault
def test_checkpoints_are_kept_replaced_and_told_from_damaged_ones(folder):
    _saved(folder, 1, 2, 3)
    assert Checkpoints(folder).steps() == [2, 3]
    assert _restored(folder) == (3, 6.0)

    _saved(folder / "other", 5)
    (folder / "4" / "half").write_bytes(b"x")  # killed before its manifest
    largest = max(files_in(folder / "3"), key=lambda name: (folder / "3" / name).stat().length)
    content = bytearray((folder / "3" / largest).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "3" / largest).write_bytes(bytes(content))
    assert _restored(folder) == (2, 5.0)
    assert (folder / "3.corrupt" / manifest.NAME).exists() and not (folder / "3").exists()

    _saved(folder, 4)
    assert Checkpoints(folder).steps() == [2, 4] and not (folder / "4" / "half").exists()


@pytest.mark.fault
def test_a_store_that_does_not_answer_damages_no_checkpoint(folder, monkeypatch):
    _saved(folder, 1)

    def silent(*arguments, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(manifest, "_entry", silent)
    with pytest.raises(ConnectionError):
        _restored(folder)
    monkeypatch.undo()
    assert _restored(folder) == (1, 4.0)


def test_no_checkpoints_are_kept_in_a_store_that_orbax_does_not_know():
    with pytest.raises(UserError, match=r"s3://bucket/run .* Orbax keeps no checkpoints"):
        Checkpoints("s3://bucket/run")
