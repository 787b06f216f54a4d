"""Torch files that are cut, flipped or made up are refused, and nothing else happens."""

import copy
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.errors import UserError
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from tests.pretrained import files
from tests.pretrained.files import FIXTURES, legacy_of, tensor_pickle, zip_of

DAMAGED = r"is damaged or incomplete: download or copy it again\.$"
FOUR = np.arange(4, dtype=np.float32).tobytes()


def test_one_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = zip_of(tmp_path / "x.pth", tensor_pickle(), s0=FOUR)
    data = bytearray(path.read_bytes())
    data[data.index(FOUR) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=DAMAGED):
        load_torch(path)


def test_checksums_that_torch_was_told_to_leave_out_are_not_missed(tmp_path):
    path = zip_of(tmp_path / "x.pth", tensor_pickle(), s0=FOUR)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            data = data.replace(member.CRC.to_bytes(4, "little"), bytes(4))
    path.write_bytes(data)
    files.assert_same(load_torch(path), {"x": np.arange(2, dtype=np.float32)})


def test_members_that_overlap_are_refused(tmp_path):
    """Many names for the same bytes would make much out of a small file."""
    first = tensor_pickle(numel=2**12)[3:-1]
    second = first.replace(_text("0"), _text("1")).replace(_text("x"), _text("y"))
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}" + first + second + b".")
        archive.writestr("archive/data/0", bytes(2**14))
        twin = copy.copy(archive.getinfo("archive/data/0"))
        twin.filename = "archive/data/1"
        archive.filelist.append(twin)
    with pytest.raises(UserError, match=DAMAGED):
        load_torch(path)


def _text(text: str) -> bytes:
    return pickle.dumps(text, protocol=2)[2:-3]


def test_a_malicious_file_is_refused_by_name_in_both_formats(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    attack = pickle.dumps({"x": Attack()}, protocol=2)
    for make in (zip_of, legacy_of):
        path = make(tmp_path / "x.pth", attack)
        with pytest.raises(UserError, match=r"x\.pth refers to posix\.mkdir, which .* nothing of"):
            load_torch(path)
    # It may also stand where the old format has a number or the names of the storages.
    for position in range(5):
        parts = [files.LEGACY_MAGIC, files.LEGACY_VERSION, files.LEGACY_SYSTEM, b"\x80\x02}.", b""]
        parts[position] = attack
        (tmp_path / "x.pth").write_bytes(b"".join(parts))
        with pytest.raises(UserError, match=r"refers to posix\.mkdir"):
            load_torch(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_of_something_else_is_no_weight_file(tmp_path):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(UserError, match="is a pickle, but not one of PyTorch"):
        load_torch(tmp_path / "x.pth")


def test_a_zip_archive_of_something_else_is_no_weight_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="is a zip archive without weights"):
        load_torch(tmp_path / "x.pth")


def test_real_files_that_hold_programs_are_refused():
    with pytest.raises(UserError, match="holds a whole model, of which nothing was run"):
        load_torch(FIXTURES / "module.pth")
    with pytest.raises(UserError, match="is a TorchScript program"):
        load_torch(FIXTURES / "script.pt")


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "x.safetensors"])
def test_a_file_cut_at_any_byte_is_refused(tmp_path, name):
    path = tmp_path / name
    if name == "zip.pth":
        zip_of(path, tensor_pickle(), s0=FOUR)
    elif name == "legacy.pth":
        legacy_of(path, tensor_pickle(), s0=FOUR)
    else:
        save_torch(path, {"x": np.arange(4, dtype=np.float32)})
    whole = path.read_bytes()
    load_torch(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_torch(path)


@pytest.mark.parametrize("name", ["checkpoint.pth", "legacy.pth", "tensors.safetensors"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_and_nothing_else(tmp_path_factory, name, data):
    whole = bytearray((FIXTURES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(whole[:kept] if data.draw(st.booleans()) else whole)
    try:
        load_torch(path)
    except UserError:
        pass
