"""A pickle is read as data: nothing in it runs, and what weights do not need is refused by name."""

import argparse
import collections
import datetime
import io
import os
import pathlib
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.pretrained import torch_pickle
from avit_jax.pretrained.torch_objects import Inert, Tensor, Unreadable
from avit_jax.pretrained.torch_pickle import read
from tests.pretrained import files


class Attack:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def content(pickled: bytes):
    return read(io.BytesIO(pickled)).content


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_refused_by_name_and_not_made(tmp_path, protocol):
    attack = pickle.dumps({"x": Attack(os.mkdir, str(tmp_path / "ran"))}, protocol=protocol)
    with pytest.raises(Unreadable, match=r"refers to posix\.mkdir, which"):
        content(attack)
    assert not (tmp_path / "ran").exists()
    pickle.loads(attack)
    assert (tmp_path / "ran").exists()  # the attack is a real one


@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"(S'true'\niposix\nsystem\n.", r"posix\.system"),
        (b"(cposix\nsystem\nS'true'\no.", r"posix\.system"),
        (b"cposix\nsystem\n)\x81.", r"posix\.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.", r"posix\.system"),
        (b"cbuiltins\neval\n.", r"builtins\.eval"),
        (b"cbuiltins\ngetattr\n.", r"builtins\.getattr"),
        (b"ctorch.storage\n_load_from_bytes\n.", r"torch\.storage\._load_from_bytes"),
        (b"ccollections\nOrderedDict.update\n.", r"collections\.OrderedDict\.update"),
        (b"cavit_jax.main\nmain\n.", r"avit_jax\.main\.main"),
        (b"c\x1b[2J\nname\n.", r"'\\x1b\[2J\.name'"),
        (b"c" + b"m" * 500 + b"\nname\n.", r"m{97}\.\.\., which"),
    ],
)
def test_every_way_to_name_a_global_is_watched(pickled, name):
    with pytest.raises(Unreadable, match=rf"refers to {name}"):
        content(pickled)


@pytest.mark.parametrize("opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"P0\n"])
def test_references_into_other_registries_are_refused(opcode):
    with pytest.raises(Unreadable, match=r"pickle instruction (EXT|PERSID)"):
        content(b"\x80\x02" + opcode + b".")


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_training_scripts_leave_behind_is_inert(protocol):
    left = {
        "args": argparse.Namespace(lr=0.1, nested={"a": [1, (2, 3, 4, 5)]}),
        "best": np.float64(81.5),
        "table": np.arange(3),
        "path": pathlib.PurePosixPath("runs"),
        "when": datetime.timedelta(seconds=3),
        "meters": collections.defaultdict(list, a=[1]),
        "counts": collections.Counter("aab"),
        "blob": b"\x00\xff",
        "names": {"a"},
        "frozen": frozenset({1}),
        "type": int,
        "plain": [None, True, 1.5, 2**40, "text", (1,), (1, 2), ()],
    }
    found = content(pickle.dumps(left, protocol=protocol))
    assert found["plain"] == left["plain"]
    for name in ("args", "best", "table", "path", "when", "meters", "counts"):
        assert isinstance(found[name], Inert), name
    assert found["args"].name == "argparse.Namespace"


def test_state_changes_nothing():
    names = {"x": content(files.tensor_pickle())["x"]}
    assert isinstance(names["x"], Tensor)
    hostile = b"\x80\x02cargparse\nNamespace\n)R}X\x04\x00\x00\x00nameX\x01\x00\x00\x00zsb."
    assert content(hostile).name == "argparse.Namespace"
    on_global = b"\x80\x02cargparse\nNamespace\n}X\x04\x00\x00\x00nameX\x01\x00\x00\x00zsb."
    assert content(on_global).name == "argparse.Namespace"


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"\x80\x02]",
        b"\x80\x02R.",
        b"\x80\x02t.",
        b"\x80\x02N\x85\x86.",
        b"\x80\x02h\x07.",
        b"\x80\x02NNNa.",
        b"\x80\x02}N(NNNu.",
        b"\x80\x02}NN\x85R.",
        b"\x80\x02NQ.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)))tR.",
        b"\x80\x02ccollections\nOrderedDict\nN\x85R.",
        b"S'\\q'\n",
    ],
)
def test_malformed_programs_are_called_damaged(pickled):
    with pytest.raises(Unreadable, match="is damaged or incomplete"):
        content(pickled)


@pytest.mark.parametrize(
    "claims",
    [
        {"shape": (-1,)},
        {"strides": (-1,)},
        {"offset": -1},
        {"numel": -4},
        {"shape": (True,)},
        {"shape": (2.0,)},
        {"shape": ("2",)},
        {"shape": (2, 2)},
        {"shape": [2]},
        {"shape": (1,) * 40, "strides": (1,) * 40},
    ],
)
def test_claims_that_are_no_counts_are_refused(claims):
    with pytest.raises(Unreadable, match="is damaged"):
        content(files.tensor_pickle(**claims))


def test_a_negated_view_is_refused():
    with pytest.raises(Unreadable, match="lazily negated"):
        content(files.tensor_pickle(metadata=b"}X\x03\x00\x00\x00neg\x88s"))


def test_a_sparse_memo_and_declared_lengths_take_no_memory():
    """CPython's own unpickler reserves memory for every index below the one that is used."""
    assert content(b"\x80\x02Nr\xff\xff\xff\xff.") is None
    with pytest.raises(Unreadable, match="is damaged"):
        content(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.")


def test_deep_keys_are_not_hashed():
    """A tuple that holds its predecessor twice takes 2**60 steps to hash."""
    keys = content(b"\x80\x02})" + b"2\x86" * 60 + b"Ns.")
    assert [key.name for key in keys] == ["tuple"]


def test_an_endless_pickle_is_cut_off(monkeypatch):
    monkeypatch.setattr(torch_pickle, "MAX_PICKLE_BYTES", 100)
    with pytest.raises(Unreadable, match="more than 0 MiB, which no state dict needs"):
        content(b"\x80\x02" + b"]" * 200 + b".")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_pickles_are_refused_or_read_and_nothing_else(data):
    pickled = bytearray(files.tensor_pickle())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(pickled) - 1))
        pickled[position] = data.draw(st.integers(0, 255))
    try:
        content(bytes(pickled))
    except Unreadable:
        pass


@settings(max_examples=300, deadline=None)
@given(
    opcodes=st.lists(
        st.sampled_from([op for op in pickletools.opcodes if op.arg is None]), max_size=30
    )
)
def test_arbitrary_programs_are_refused_or_read_and_nothing_else(opcodes):
    program = b"".join(op.code.encode("latin-1") for op in opcodes)
    try:
        content(b"\x80\x02" + b"](N}" + program + b".")
    except Unreadable:
        pass


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner, inner)
        ),
        max_leaves=10,
    ),
    st.integers(0, 5),
)
def test_plain_objects_are_read_as_the_standard_library_reads_them(value, protocol):
    assert content(pickle.dumps(value, protocol=protocol)) == value
