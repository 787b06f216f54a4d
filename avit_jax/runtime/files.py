"""Files that appear under their final name complete or not at all, here or in an object store."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import jax
import numpy as np
from etils import epath


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether `path` lies in a local file system and not in an object store such as `gs://`."""
    return "://" not in os.fspath(path)


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Makes names created, renamed or removed in a local directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file that is never seen half-written, replacing what was there."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file that is never seen half-written, replacing what was there.

    In an object store the write of one object is atomic by itself.
    """
    if is_local(path):
        with open_atomic(path) as file:
            file.write(data)
    else:
        epath.Path(path).write_bytes(data)


@contextlib.contextmanager
def of_path(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives errors of the system that do not name a file, as those of writing, the name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def open_atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A local file to write into, which takes the name `path` when it is complete.

    Where something is raised, what was at `path` stays as it is. Missing folders are made. For an
    object in a store the file is uploaded then.
    """
    if not is_local(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            epath.Path(path).write_bytes(file.read())
        return
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    remove_remains(path, "tmp")
    temporary = f"{path}.tmp{os.getpid()}"
    try:
        with of_path(path), open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    sync_directory(os.path.dirname(path))


def remains(path: str | os.PathLike[str], kind: str) -> list[str]:
    """What dead processes of this machine have left beside `path`, as `path.<kind><pid>`.

    A file or folder is written in full under such a name before it takes its own, and stays there
    where its process was killed.
    """
    folder, name = os.path.split(os.path.abspath(path))
    ending = re.compile(re.escape(f"{name}.{kind}") + r"(\d+)")
    try:
        found = {other: ending.fullmatch(other) for other in os.listdir(folder)}
    except OSError:
        return []
    return [
        os.path.join(folder, other)
        for other, process in found.items()
        if process is not None and not _is_alive(int(process[1]))
    ]


def remove_remains(path: str | os.PathLike[str], kind: str) -> None:
    """Take `remains` away; what cannot be removed stays."""
    for left in remains(path, kind):
        with contextlib.suppress(OSError):
            shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user, or no number of a process
        return True
    return True


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value`, anything that `plain` takes, as indented JSON never seen half-written."""
    write_text_atomic(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Turns numbers, arrays, and mappings and sequences of them into what valid JSON can hold.

    Floats keep all their bits. JSON has no NaN or infinity, so these become the strings "nan",
    "inf" and "-inf", which `float` reads back.

    Raises:
        TypeError: for anything else.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.dtype.kind not in "biu":
            array = array.astype(np.float64)
        return plain(array.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"a {type(value).__name__} cannot be written as JSON: write numbers, strings, arrays, "
        "or lists and mappings of them."
    )
