"""Weights written so that PyTorch opens them, without PyTorch.

`torch.load(path, weights_only=True)` reads the `.pth` files: a zip archive of the tensors' bytes
and a pickle that describes them. Equal weights give equal files, byte for byte.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
import safetensors.numpy

from avit_jax.errors import UserError
from avit_jax.pretrained.arrays import as_arrays
from avit_jax.pretrained.pixels import PIXELS
from avit_jax.pretrained.torch_objects import STORAGES
from avit_jax.pretrained.written_pixels import FIELD
from avit_jax.runtime.files import is_local, open_atomic
from avit_jax.runtime.stores import SCHEMES, as_path

ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
_FOLDER = "archive"
_ALIGNMENT = 64
_PADDING_FIELD = 0x4246  # the extra field of zip that torch pads its records with
_STORAGE_NAMES = {dtype: name for name, dtype in STORAGES.items()}


def save_torch(
    path: str | os.PathLike[str], state_dict: Mapping[str, Any], *, pixels: str | None = None
) -> None:
    """Writes names and arrays as a file of PyTorch, complete or not at all.

    Args:
        path: `.pth`, `.pt` or `.bin` for the zip format of `torch.save`, or `.safetensors`.
        state_dict: for example from `Model.to_torch`; or tensors of torch, of which those narrower
            than float32 become float32.
        pixels: which pixels the weights take, a key of `pixels.PIXELS`, for the file to say so:
            "imagenet" for parameters of this package. Otherwise those of a model whose weights were
            published for other pixels count as published when they are read again.

    Raises:
        UserError: another ending, unknown pixels, or a dtype that the format does not have.
    """
    address, path = os.fspath(path), as_path(path)
    is_elsewhere = not is_local(address) and address.partition("://")[0] not in SCHEMES
    if path.suffix not in ENDINGS or is_elsewhere:
        raise UserError(
            f"weights cannot be written to {address}: give a path that ends in .pth, .pt, .bin or "
            ".safetensors."
        )
    if pixels is not None and pixels not in PIXELS:
        raise UserError(f"pixels is {pixels!r}: write one of {', '.join(PIXELS)}.")
    write = _write_safetensors if path.suffix == ".safetensors" else _write_zip
    arrays = {name: np.asarray(a, order="C") for name, a in as_arrays(state_dict).items()}
    for name, array in arrays.items():
        if array.dtype not in _STORAGE_NAMES:
            raise UserError(
                f"{name} has dtype {array.dtype}, which cannot be written to {address}: convert it "
                "to float32."
            )
    with open_atomic(path) as file:
        write(file, arrays, {} if pixels is None else {FIELD: pixels})


def _write_safetensors(
    file: IO[bytes], arrays: Mapping[str, np.ndarray], said: Mapping[str, str]
) -> None:
    data = safetensors.numpy.save(dict(arrays), metadata={"format": "pt", **said})
    # The library writes the metadata in an order of chance; the same weights are the same file.
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors stay aligned
    file.write(struct.pack("<Q", len(ordered)) + ordered + data[8 + length :])


def _write_zip(file: IO[bytes], arrays: Mapping[str, np.ndarray], said: Mapping[str, str]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, data: bytes | memoryview) -> None:
            member = zipfile.ZipInfo(f"{_FOLDER}/{name}")
            start = file.tell() + _header_bytes(member) + 4
            padding = -start % _ALIGNMENT
            member.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
            archive.writestr(member, data)

        write("data.pkl", _pickled(arrays))
        write("byteorder", b"little")
        for index, array in enumerate(arrays.values()):
            write(f"data/{index}", array.reshape(-1).view(np.uint8).data)
        write("version", b"3\n")
        for name, text in said.items():
            write(name, text.encode())


def _header_bytes(member: zipfile.ZipInfo) -> int:
    """Bytes between the beginning of a member and its extra fields."""
    return 30 + len(member.filename)


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of an OrderedDict of tensors, put together from its instructions without torch."""
    items = b"".join(
        _constant(name) + _tensor(key, array) for key, (name, array) in enumerate(arrays.items())
    )
    return (
        pickle.PROTO + b"\x02" + _EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP
    )


def _tensor(key: int, array: np.ndarray) -> bytes:
    """The instructions that make a tensor whose bytes lie in the archive's record `key`."""
    storage = _tuple(
        _constant("storage"),
        _global(_STORAGE_NAMES[array.dtype]),
        _constant(str(key)),
        _constant("cpu"),
        _constant(array.size),
    )
    strides = tuple(stride // array.itemsize for stride in array.strides)
    arguments = _tuple(
        storage + pickle.BINPERSID,
        _constant(0),
        _constant(array.shape),
        _constant(strides),
        _constant(False),
        _EMPTY_DICT,
    )
    return _global("torch._utils._rebuild_tensor_v2") + arguments + pickle.REDUCE


def _constant(value: Any) -> bytes:
    """The instructions that make a text, a number or a tuple of them, without head and end."""
    return pickle.dumps(value, protocol=2)[2:-1]


def _global(name: str) -> bytes:
    """The instruction that names a function or class, for example "torch.FloatStorage"."""
    module, _, attribute = name.rpartition(".")
    return pickle.GLOBAL + f"{module}\n{attribute}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


_EMPTY_DICT = _global("collections.OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
