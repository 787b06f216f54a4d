"""The two file formats of `torch.save`, without torch: a zip archive, and a stream before 1.6.

Both hold a pickle that describes tensors as views of storages (see `torch_pickle`), and the bytes
of those storages. The file is mapped into memory and tensors are views of it, so nothing is held
twice. No size or position in a file is trusted: each is compared with the bytes that are there.
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avit_jax.pretrained.torch_objects import DAMAGED, Storage, Tensor, Unreadable
from avit_jax.pretrained.torch_pickle import read

# Both stand at the beginning of the old format.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LOCAL_HEADER_BYTES = 30
# What zipfile was seen to raise on damaged archives; RuntimeError where one seems to be encrypted.
BROKEN_ZIP = (
    zipfile.BadZipFile,
    RuntimeError,
    ValueError,
    OSError,
    LookupError,
    EOFError,
    MemoryError,
    OverflowError,
    struct.error,
)


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """A file whose description of tensors was read, but none of the tensors themselves.

    Attributes:
        content: dicts, lists, numbers and `Tensor` descriptions, as they were saved.
        record: the bytes of a storage, by its key.
        big_endian: whether these are in the other byte order.
        size: of the whole file, in bytes.
    """

    content: Any
    record: Callable[[str], memoryview]
    big_endian: bool
    size: int
    _swapped: dict[tuple[str, int], memoryview] = dataclasses.field(default_factory=dict)

    def array(self, tensor: Tensor) -> np.ndarray:
        """A described tensor as a read-only array, a view of the file.

        Raises:
            Unreadable: it claims elements that its storage or the file does not have.
        """
        dtype, width = tensor.storage.dtype, tensor.storage.dtype.itemsize
        # With a stride of 0 a few bytes could make an endless tensor, and with one length of 0 the
        # product of the lengths would not show how large the others are.
        if any(length > self.size for length in tensor.shape) or (
            (count := math.prod(tensor.shape)) * width > self.size
        ):
            raise Unreadable(
                "claims a tensor larger than the whole file: take weights from elsewhere"
            )
        if not count:
            return np.empty(tensor.shape, dtype)
        storage = self._bytes(tensor.storage)
        last = tensor.offset + sum(
            (length - 1) * stride
            for length, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        # Python's integers do not overflow; NumPy's own check of strides does.
        if (last + 1) * width > len(storage):
            raise Unreadable(DAMAGED)
        # The stride of an axis of length 1 is never used, and may be too large for NumPy.
        strides = [
            stride * width if length > 1 else 0
            for length, stride in zip(tensor.shape, tensor.strides, strict=True)
        ]
        return np.ndarray(tensor.shape, dtype, storage, tensor.offset * width, strides)

    def _bytes(self, storage: Storage) -> memoryview:
        """The bytes of a storage, little-endian whatever machine wrote them."""
        try:
            record = self.record(storage.key)
        except KeyError:
            raise Unreadable(DAMAGED) from None
        start, numel, width = storage.start, storage.numel, storage.dtype.itemsize
        if len(record) != storage.record_numel * width or start + numel > storage.record_numel:
            raise Unreadable(DAMAGED)
        if self.big_endian and width > 1:
            if (storage.key, width) not in self._swapped:
                swapped = np.frombuffer(record, f">u{width}").astype(f"<u{width}")
                self._swapped[storage.key, width] = memoryview(swapped).cast("B")
            record = self._swapped[storage.key, width]
        return record[start * width : (start + numel) * width]


def open_zip(path: Path) -> TorchFile:
    """Opens a file that `torch.save` wrote as a zip archive.

    Raises:
        Unreadable: damaged, compressed, a program, or a pickle that is refused.
    """
    with open(path, "rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        members = zip_members(file)
    folder = next((name[: -len("data.pkl")] for name in members if _is_pickle(name)), None)
    if folder is None:
        raise Unreadable("is a zip archive without weights: give a file that torch.save() wrote")
    if folder + "constants.pkl" in members or any(n.startswith(folder + "code/") for n in members):
        raise Unreadable(
            "is a TorchScript program, not weights: load it with torch.jit.load() and save its "
            "state_dict()"
        )
    archive = _Archive(mapped, members)
    content = read(io.BytesIO(archive.record(folder + "data.pkl"))).content
    order = b"little"
    if folder + "byteorder" in members:
        order = bytes(archive.record(folder + "byteorder"))
    if order not in (b"little", b"big"):
        raise Unreadable(DAMAGED)
    return TorchFile(
        content, lambda key: archive.record(f"{folder}data/{key}"), order == b"big", len(mapped)
    )


def zip_members(file: Any) -> dict[str, zipfile.ZipInfo]:
    """The table of contents of a zip archive, by name."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {member.filename: member for member in archive.infolist()}
    except BROKEN_ZIP:
        raise Unreadable(DAMAGED) from None


def _is_pickle(name: str) -> bool:
    return name.rpartition("/")[2] == "data.pkl"


class _Archive:
    """The uncompressed members of a mapped zip archive, each checked when it is first wanted."""

    def __init__(self, mapped: memoryview, members: dict[str, zipfile.ZipInfo]) -> None:
        self._mapped, self._members = mapped, members
        self._checked: dict[str, memoryview] = {}
        self._taken = 0

    def record(self, name: str) -> memoryview:
        """The bytes of one member.

        Raises:
            KeyError: there is none of this name.
            Unreadable: damaged or compressed.
        """
        if name not in self._checked:
            self._checked[name] = self._check(self._members[name])
        return self._checked[name]

    def _check(self, member: zipfile.ZipInfo) -> memoryview:
        if member.compress_type != zipfile.ZIP_STORED:
            raise Unreadable("is a compressed zip archive: save the weights with torch.save()")
        begin = max(0, member.header_offset)
        header = self._mapped[begin : begin + _LOCAL_HEADER_BYTES]
        if len(header) < _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
            raise Unreadable(DAMAGED)
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        begin += _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        record = self._mapped[begin : begin + member.file_size]
        self._taken += len(record)  # members that overlap add up to more than the file
        if len(record) != member.file_size or self._taken > len(self._mapped):
            raise Unreadable(DAMAGED)
        # torch writes a checksum of 0 where it was told to compute none.
        if member.CRC not in (0, zlib.crc32(record)):
            raise Unreadable(DAMAGED)
        return record


def open_legacy(path: Path) -> TorchFile:
    """Opens a file that `torch.save` wrote before 1.6, or was told to write that way.

    Raises:
        Unreadable: damaged, or a pickle that is refused.
    """
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if read(mapped).content != _LEGACY_MAGIC:
        raise Unreadable("is a pickle, but not one of PyTorch: give a file that torch.save() wrote")
    if read(mapped).content != _LEGACY_VERSION:
        raise Unreadable(DAMAGED)
    read(mapped)  # sizes of C's integers on the machine it was written on
    content, storages = read(mapped)
    keys = read(mapped).content
    bytes_there, position = memoryview(mapped), mapped.tell()
    records: dict[str, memoryview] = {}
    for key in keys if isinstance(keys, list) else [None]:
        storage = storages.get(key) if isinstance(key, str) else None
        numel = int.from_bytes(bytes_there[position : position + 8], "little")
        if storage is None or numel != storage.record_numel:
            raise Unreadable(DAMAGED)
        position += 8
        records[key] = bytes_there[position : position + numel * storage.dtype.itemsize]
        position += numel * storage.dtype.itemsize
    return TorchFile(content, records.__getitem__, False, len(mapped))
