"""The SHA-256 manifest that says which files make up a checkpoint and what they must contain.

Checkpoint libraries do not notice a flipped byte in a data file: it loads as another number. The
manifest is written after all other files, so it also says that the checkpoint is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from avit_jax.runtime.files import is_local, sync_directory, write_json_atomic

NAME = "manifest.json"
_CHUNK_BYTES = 1 << 20
_THREADS = 4


def write(directory: epath.Path, content: Mapping[str, Any]) -> None:
    """Hashes every file below `directory` and writes the manifest, as the last file.

    Data and directories are forced to the disk first, so that a power cut cannot leave a manifest
    without its files.

    Args:
        directory: the checkpoint, with all its data files in place.
        content: what else the manifest shall hold; the names "files" and "manifest_sha256" are
            taken.
    """
    paths = sorted(os.fspath(path) for path in _files(directory))
    with ThreadPoolExecutor(_THREADS) as pool:
        entries = list(pool.map(lambda path: _entry(epath.Path(path), sync=True), paths))
    if is_local(directory):
        for parent, _, _ in os.walk(directory):
            sync_directory(parent)
        sync_directory(directory.parent)
    names = [os.path.relpath(path, directory) for path in paths]
    manifest = {**content, "files": dict(zip(names, entries, strict=True))}
    write_json_atomic(directory / NAME, {**manifest, "manifest_sha256": _digest(manifest)})


def is_in(directory: epath.Path) -> bool:
    """Whether a checkpoint has its manifest.

    Raises:
        PermissionError: nobody knows, for the user may not look.
    """
    return _is_there(directory / NAME)


def read(directory: epath.Path) -> dict[str, Any]:
    """Reads the manifest of a checkpoint.

    Raises:
        ValueError: if it is not what was written.
        FileNotFoundError: if there is none.
    """
    try:
        manifest = json.loads((directory / NAME).read_text())
        if manifest.pop("manifest_sha256") == _digest(manifest):
            return manifest
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise ValueError(f"{NAME} is damaged")


def find_damage(directory: epath.Path) -> str | None:
    """Says which file of a checkpoint is damaged and how, or `None` for a sound checkpoint."""
    try:
        files = read(directory)["files"]
    except FileNotFoundError:
        return f"{NAME} is missing"
    except PermissionError:  # no damage, and the user's to put right
        raise
    except OSError as error:
        if not is_local(directory):
            raise  # a store that does not answer has damaged nothing
        return f"{NAME} cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda item: _damage(directory, *item), files.items())
        return next((damage for damage in found if damage), None)


def _damage(directory: epath.Path, name: str, expected: Mapping[str, Any]) -> str | None:
    path = directory / name
    if not _is_there(path):
        return f"{name} is missing"
    try:
        entry = _entry(path, sync=False)
    except PermissionError:  # no damage, and the user's to put right
        raise
    except OSError as error:
        if not is_local(directory):
            raise  # a store that does not answer has damaged nothing
        return f"{name} cannot be read ({error.strerror})"
    if entry["bytes"] != expected["bytes"]:
        return f"{name} has {entry['bytes']} bytes instead of {expected['bytes']}"
    if entry["sha256"] != expected["sha256"]:
        return f"{name} has other contents than were written (SHA-256 differs)"
    return None


def _is_there(path: epath.Path) -> bool:
    if not is_local(path):
        return path.exists()
    try:
        os.stat(path)
    except PermissionError:
        raise
    except OSError as error:  # another error than these is named by whoever reads the file
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def _entry(path: epath.Path, *, sync: bool) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        if sync and is_local(path):
            os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _files(directory: epath.Path) -> list[epath.Path]:
    found = []
    for path in directory.iterdir():
        found += _files(path) if path.is_dir() else [path]
    return found


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
