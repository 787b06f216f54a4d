"""Memory of batches: used again once nobody looks at it, and gone with its holders."""

import gc

import jax
import numpy as np

from avit_jax.data.shared_batch import ALIGNMENT, SharedBatch
from avit_jax.runtime.device_mesh import make_mesh, shard_batch

LAYOUT = {"image": ((8, 5, 5, 3), np.dtype(np.uint8)), "label": ((8,), np.dtype(np.int32))}


def test_two_mappings_of_one_file_are_the_same_aligned_memory():
    here = SharedBatch(LAYOUT)
    there = SharedBatch(LAYOUT, here.file)
    here.close_file()
    values = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), dtype=np.uint8)
    here.arrays()["image"][:] = values
    here.arrays()["label"][:] = np.arange(8)
    arrays = there.arrays()
    np.testing.assert_array_equal(arrays["image"], values)
    np.testing.assert_array_equal(arrays["label"], np.arange(8))
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in arrays.values())


def test_memory_is_unused_only_when_the_last_view_has_gone():
    memory, unused = SharedBatch(LAYOUT), []
    arrays = memory.arrays(when_unused=lambda: unused.append(True))
    view = arrays["label"].reshape(2, 4)[1:]
    del arrays
    gc.collect()
    assert not unused
    del view
    gc.collect()
    assert unused
    memory.close_file()


def test_a_batch_on_the_devices_does_not_change_when_its_memory_is_used_again():
    memory, unused = SharedBatch(LAYOUT), []
    arrays = memory.arrays(when_unused=lambda: unused.append(True))
    arrays["image"][:] = 7
    placed = jax.block_until_ready(shard_batch(arrays, make_mesh(devices=jax.devices()[:1])))
    del arrays
    gc.collect()
    if unused:  # the devices have copies; otherwise they keep the memory from being used
        memory.arrays()["image"][:] = 9
    np.testing.assert_array_equal(placed["image"], np.full((8, 5, 5, 3), 7))
    del placed
    gc.collect()
    assert unused
    memory.close_file()
