"""Files of the real torch are read bit for bit, and whatever a file claims is checked."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.errors import UserError
from avit_jax.pretrained.weights import load_torch
from tests.pretrained import files
from tests.pretrained.files import FIXTURES, legacy_of, tensor_pickle, zip_of

FOUR = np.arange(4, dtype=np.float32).tobytes()
DAMAGED = r"is damaged or incomplete: download or copy it again\.$"


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth"])
def test_every_dtype_and_layout_of_torch_is_read_bit_for_bit(name):
    files.assert_same(load_torch(FIXTURES / name, weights="raw"), files.expected())


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth"])
def test_tensors_share_the_file_and_cannot_change_it(name):
    arrays = load_torch(FIXTURES / name, weights="raw")
    assert not any(array.flags.writeable for array in arrays.values() if array.size)
    assert np.shares_memory(arrays["offset_and_steps"], arrays["contiguous"])


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [
        ("DoubleStorage", np.float64),
        ("FloatStorage", np.float32),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", np.int64),
        ("BoolStorage", np.bool_),
    ],
)
def test_the_other_byte_order_is_turned(tmp_path, storage, dtype):
    wanted = np.array([0, 1, 1, 3]).astype(dtype)
    width = wanted.dtype.itemsize
    data = wanted.view(f"<u{width}").astype(f">u{width}").tobytes()
    pickled = tensor_pickle(storage=storage, shape=(2,), strides=(2,), offset=1)
    path = zip_of(tmp_path / "big.pth", pickled, s0=data, byteorder=b"big")
    files.assert_same(load_torch(path), {"x": wanted[1::2]})
    path = zip_of(tmp_path / "middle.pth", pickled, s0=data, byteorder=b"middle")
    with pytest.raises(UserError, match=DAMAGED):
        load_torch(path)


@pytest.mark.parametrize("make", [zip_of, legacy_of])
def test_a_view_inside_its_storage_is_read(tmp_path, make):
    pickled = tensor_pickle(shape=(2, 1), strides=(1, 2**80), offset=2)
    path = make(tmp_path / "x.pth", pickled, s0=FOUR)
    files.assert_same(load_torch(path), {"x": np.array([[2], [3]], np.float32)})


@pytest.mark.parametrize("make", [zip_of, legacy_of])
@pytest.mark.parametrize(
    "claims",
    [
        {"offset": 3},
        {"offset": 2**70},
        {"shape": (5,)},
        {"shape": (2, 2), "strides": (3, 1)},
        {"strides": (4,)},
        # 4 * 2**62 elements is 0 in the arithmetic of a processor.
        {"shape": (5,), "strides": (2**60,)},
        {"shape": (5,), "strides": (2**62,)},
        {"numel": 3},
        {"numel": 5},
        {"numel": 2**62},
        {"storage": "DoubleStorage"},
    ],
)
def test_a_view_that_leaves_its_storage_is_refused(tmp_path, make, claims):
    path = make(tmp_path / "x.pth", tensor_pickle(**claims), s0=FOUR)
    with pytest.raises(UserError, match=DAMAGED):
        load_torch(path)


@pytest.mark.parametrize("make", [zip_of, legacy_of])
@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2**40,), (0,)),
        ((2**20, 2**20), (0, 0)),
        ((0, 2**62), (0, 0)),
        ((10**5000,), (0,)),
        ((1000,) * 32, (0,) * 32),
    ],
)
def test_a_tensor_larger_than_its_file_is_refused(tmp_path, make, shape, strides):
    path = make(tmp_path / "x.pth", tensor_pickle(shape=shape, strides=strides), s0=FOUR)
    with pytest.raises(UserError, match="claims a tensor larger than the whole file"):
        load_torch(path)


def test_a_missing_storage_is_damage(tmp_path):
    with pytest.raises(UserError, match=DAMAGED):
        load_torch(zip_of(tmp_path / "x.pth", tensor_pickle()))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_compressed_archive_is_refused_unpacked(tmp_path, compression):
    path = zip_of(tmp_path / "x.pth", tensor_pickle(), compression=compression, s0=FOUR)
    with pytest.raises(UserError, match="is a compressed zip archive"):
        load_torch(path)


@settings(max_examples=200, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    strides=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    offset=st.integers(0, 9),
)
def test_views_are_those_that_the_definition_says(tmp_path_factory, shape, strides, offset):
    """Element i of a view is element offset + sum(i * strides) of the storage, or it is refused."""
    numel, strides = 12, strides[: len(shape)]
    storage = np.arange(numel, dtype=np.int16)
    pickled = tensor_pickle(
        shape=tuple(shape),
        strides=tuple(strides),
        offset=offset,
        numel=numel,
        storage="ShortStorage",
    )
    path = zip_of(tmp_path_factory.getbasetemp() / "view.pth", pickled, s0=storage.tobytes())
    index = np.array([offset + np.dot(i, strides) for i in np.ndindex(*shape)], int)
    if index.size * 2 > path.stat().st_size or (index.size and index.max() >= numel):
        with pytest.raises(UserError):
            load_torch(path)
    else:
        files.assert_same(load_torch(path), {"x": storage[index].reshape(shape)})
