"""A file that grows: appended to on a local disk, in an object store written anew and whole.

Objects cannot be appended to. What is new is kept in a local copy and goes to the store when
`sync` is called: the whole object while it is small, later numbered parts beside it
(`NAME.part/000000000123456789`, the number of bytes before it), so that a long log is not sent
again for every line. Parts become one object when the file is opened again or closed. What was
written since the last `sync` is lost where a process is killed: whoever saves a state calls it
before, so that all lines up to that state are there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local
from avit_jax.runtime.growing_file import refuse_changed

WHOLE_BYTES = 4 << 20  # up to which an object is written whole


class Appended(Protocol):
    """What both kinds of file do."""

    def lines(self) -> Iterator[bytes]:
        """Yields the lines with their ends; the last may lack its own."""

    def cut(self, size: int) -> None:
        """Removes what is behind the first `size` bytes."""

    def write(self, data: bytes) -> None:
        """Appends."""

    def refuse_changed(self, length: int) -> None:
        """Raises UserError where it has lost its name or some of the `length` bytes written."""

    def sync(self) -> None:
        """Makes all of it survive the end of process and machine."""

    def join(self) -> None:
        """Makes one object of its parts, once all is synced."""

    def close(self) -> None:
        """Lets go of it, and writes nothing."""


def open_appended(path: Path) -> Appended:
    """Opens a file, which is made where there is none; OSError where it cannot be."""
    return LocalFile(path) if is_local(path) else StoredFile(path)


class LocalFile:
    """A file on a local disk; what was written is at once beyond the reach of a killed process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        # At the end, wherever that is: a file that somebody empties gets no hole of NUL bytes.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._file = open(os.open(path, flags, 0o666), "r+b", buffering=0)

    def fileno(self) -> int:
        """The descriptor, for a lock."""
        return self._file.fileno()

    def lines(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:  # through a buffer; the one that writes has none
            yield from file

    def cut(self, size: int) -> None:
        self._file.truncate(size)
        os.fsync(self._file.fileno())

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def refuse_changed(self, length: int) -> None:
        refuse_changed(self._path, self._file.fileno(), length)

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def join(self) -> None:
        pass  # it is one file

    def close(self) -> None:
        self._file.close()


class StoredFile:
    """An object, a local copy of it, and how much of that is in the store."""

    def __init__(self, path: Path, *, whole: int = WHOLE_BYTES) -> None:
        self._path, self._parts = path, path.with_name(path.name + ".part")
        self._whole = whole
        self._copy = tempfile.TemporaryFile(prefix="avit_jax_")
        if path.exists():
            self._copy.write(path.read_bytes())
        found = sorted(stores.children(self._parts), key=lambda part: part.name)
        for part in found:
            if part.name == f"{self._copy.tell():018}":  # others are in the object already
                self._copy.write(part.read_bytes())
        self._stored = self._copy.tell()
        if found:
            self._write_whole()

    def lines(self) -> Iterator[bytes]:
        self._copy.seek(0)
        try:
            while line := self._copy.readline():  # `yield from` would close it at the end
                yield line
        finally:
            self._copy.seek(0, os.SEEK_END)

    def cut(self, size: int) -> None:
        self._copy.truncate(size)
        self._copy.seek(0, os.SEEK_END)
        self._write_whole()

    def write(self, data: bytes) -> None:
        self._copy.write(data)

    def refuse_changed(self, length: int) -> None:
        pass  # the next `sync` writes what is missing from the copy

    def sync(self) -> None:
        size = self._copy.tell()
        if size == self._stored and (size or self._path.exists()):
            return
        if size <= self._whole:
            self._write_whole()
            return
        self._copy.seek(self._stored)
        (self._parts / f"{self._stored:018}").write_bytes(self._copy.read())
        self._stored = size

    def join(self) -> None:
        if stores.children(self._parts):
            self._write_whole()

    def close(self) -> None:
        self._copy.close()

    def _write_whole(self) -> None:
        """The object from the copy, and then no parts."""
        self._copy.seek(0)
        self._path.write_bytes(self._copy.read())
        self._stored = self._copy.tell()
        for part in stores.children(self._parts):
            part.unlink(missing_ok=True)
