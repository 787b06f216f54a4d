"""Written weights come back bit for bit, and a file is complete or not there."""

import os
import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from avit_jax.errors import UserError
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from tests.pretrained import files

ENDINGS = [".pth", ".pt", ".bin", ".safetensors"]
DTYPES = ["f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?", ml_dtypes.bfloat16]
arrays = st.sampled_from([np.dtype(dtype) for dtype in DTYPES]).flatmap(
    lambda dtype: st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4).flatmap(
        lambda shape: st.binary(
            min_size=(size := int(np.prod(shape)) * dtype.itemsize), max_size=size
        ).map(lambda data: _array(data, dtype, shape))
    )
)


def _array(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == np.bool_:
        data = bytes(byte % 2 for byte in data)
    return np.frombuffer(data, np.uint8).view(dtype).reshape(shape)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    lambda name: not name.startswith(("module.", "_orig_mod."))  # taken off when read
)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@settings(max_examples=100, deadline=None)
@given(state_dict=st.dictionaries(names, arrays, min_size=1, max_size=5))
def test_a_round_trip_changes_no_bit(tmp_path_factory, ending, state_dict):
    path = tmp_path_factory.getbasetemp() / f"trip{ending}"
    save_torch(path, state_dict)
    files.assert_same(load_torch(path), state_dict)
    if ending == ".pth":
        assert list(load_torch(path)) == list(state_dict)


@pytest.mark.parametrize("ending", ENDINGS)
def test_arrays_that_lie_otherwise_in_memory_are_written_as_they_read(tmp_path, ending):
    save_torch(tmp_path / f"x{ending}", files.expected())
    files.assert_same(load_torch(tmp_path / f"x{ending}"), files.expected())


def test_equal_weights_give_equal_files_whatever_they_say_beside(tmp_path):
    for number in range(8):
        save_torch(tmp_path / f"{number}.safetensors", files.expected(), pixels="imagenet")
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_equal_weights_give_equal_files_with_aligned_records(tmp_path):
    for name in ("a.pth", "b.pth"):
        save_torch(tmp_path / name, files.expected())
    data = (tmp_path / "a.pth").read_bytes()
    assert data == (tmp_path / "b.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert archive.testzip() is None
        assert archive.read("archive/version") == b"3\n"
        assert archive.read("archive/byteorder") == b"little"
        for member in archive.infolist():
            extra = int.from_bytes(data[member.header_offset + 28 :][:2], "little")
            assert (member.header_offset + 30 + len(member.filename) + extra) % 64 == 0
        instructions = list(pickletools.genops(archive.read("archive/data.pkl")))
    assert {argument for op, argument, _ in instructions if op.name == "GLOBAL"} == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        *(
            f"torch {kind}Storage"
            for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short")
        ),
        *(f"torch {kind}Storage" for kind in ("Char", "Byte", "Bool")),
    }


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    save_torch(path, {"x": np.zeros(2, np.float32)})
    before = path.read_bytes()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        save_torch(path, {"x": np.ones(2, np.float32)})
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]
    assert path.read_bytes() == before


def test_a_loaded_file_can_be_written_over(tmp_path):
    save_torch(tmp_path / "x.pth", {"x": np.arange(2, dtype=np.float32)})
    arrays = load_torch(tmp_path / "x.pth")
    save_torch(tmp_path / "x.pth", {"y": arrays["x"]})
    np.testing.assert_array_equal(arrays["x"], [0, 1])
    np.testing.assert_array_equal(load_torch(tmp_path / "x.pth")["y"], [0, 1])


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    for name in ("x.npz", "x", "http://host/x.pth"):
        with pytest.raises(UserError, match=r"cannot be written to .*\.pth, \.pt, \.bin or"):
            save_torch(name, {})
    with pytest.raises(UserError, match=r"x has dtype complex64, which cannot be written"):
        save_torch(tmp_path / "deep" / "x.pth", {"x": np.zeros(2, np.complex64)})
    assert not list(tmp_path.iterdir())
    save_torch(tmp_path / "deep" / "x.pth", {"x": np.zeros(2, np.float32)})
    assert (tmp_path / "deep" / "x.pth").exists()
