"""Paths in object stores, `gs://bucket/path` and `s3://bucket/path`, beside those on local disks.

`as_path` makes a path of what a user wrote: a `pathlib.Path`, or an `etils.epath.Path` that has the
same methods. What a store cannot do as a disk does is here and nowhere else. Objects appear whole
and replace each other whole, but there are no folders to make or to rename; an object that is
missing is told from a store that does not answer, or a run would begin anew where it should wait.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from avit_jax.errors import UserError
from avit_jax.runtime.files import is_local
from avit_jax.runtime.store_errors import in_words

_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # what reads them, and its extra here
SCHEMES = tuple(_PACKAGES)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]+")


def as_path(place: str | os.PathLike[str]) -> Path:
    """A path on a local disk or in a store, for whoever opens, lists, reads or writes it.

    Raises:
        UserError: no bucket is named, or the package that reads such a store is missing.
    """
    text = os.fspath(place)
    scheme, _, rest = text.partition("://")
    if is_local(text) or scheme not in _PACKAGES:
        return Path(text)
    if not _BUCKET.fullmatch(rest.partition("/")[0]):  # it may hold a password: not repeated
        raise UserError(
            f"a path that begins with {scheme}:// names no bucket: write {scheme}://BUCKET/PATH; "
            "who asks is known from the environment and not from the path."
        )
    _prepare(scheme)
    return epath.Path(text)  # type: ignore[return-value]


def refuse_without_checkpoints(what: str, place: str | os.PathLike[str]) -> None:
    """Raises UserError for a run in a store that Orbax writes and reads no checkpoints in."""
    if os.fspath(place).startswith("s3://"):
        raise UserError(
            f"{what} {place} lies in a store that Orbax keeps no checkpoints in: write a local "
            "path or gs://BUCKET/PATH; --input and --output may lie in s3://."
        )


@functools.cache
def _prepare(scheme: str) -> None:
    """Settings of the clients, before the first of them is made."""
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"paths in {scheme}:// need the package {package}: install the extra with "
            f"pip install -e '.[{extra}]'."
        )
    os.environ.setdefault("EPATH_USE_TF", "false")  # where TensorFlow is installed all the same
    import fsspec.config

    # A listing that is remembered hides what others, and TensorStore here, have written since.
    for protocol in ("gcs", "gs", "s3"):
        fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
    # Every failed request is logged with its traceback; what it means is said by `store_errors.py`.
    logging.getLogger(package).setLevel(logging.CRITICAL)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if scheme == "gs" and emulator:  # gcsfs knows this variable, TensorStore another one
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator)
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google itself
        fsspec.config.conf["gcs"]["token"] = "anon"


def make_folder(path: Path) -> None:
    """A folder with all that are around it; in a store there are none, and no bucket is made."""
    if is_local(path):
        path.mkdir(parents=True, exist_ok=True)


def children(folder: Path) -> list[Path]:
    """What is in a folder; nothing where there is none, and a store may have none to list."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def files_in(folder: Path) -> Iterator[str]:
    """Paths below a folder of a store of all objects in it, at any depth, sorted."""
    top = os.fspath(folder).rstrip("/") + "/"
    found = filesystem(folder).find(top)
    start = len(top.partition("://")[2])
    yield from sorted(name[start:] for name in found if not name.endswith("/"))


def filesystem(path: Path):
    """The client of a store, for what paths have no method for."""
    from etils.epath import backend

    return backend.fsspec_backend.fs(os.fspath(path))


def move_folder(source: Path, target: Path, *, last: str) -> None:
    """Moves a folder; in a store by copies, so that one of the two always counts.

    Args:
        source: exists.
        target: does not.
        last: the file that makes the folder count, where it is there: copied behind all others,
            removed before them.
    """
    if is_local(source):
        source.rename(target)
        return
    names = sorted(files_in(source), key=lambda name: name == last)
    store = filesystem(source)
    for name in names:
        store.copy(os.fspath(source / name), os.fspath(target / name))
    (source / last).unlink(missing_ok=True)
    source.rmtree(missing_ok=True)


def put_folder(local: Path, target: Path) -> None:
    """Uploads all files of a local folder into a folder of a store, and removes others there.

    A marker lies in the folder as long as it is not complete, see `is_unfinished`.
    """
    files = sorted(path.relative_to(local).as_posix() for path in local.rglob("*"))
    files = [name for name in files if (local / name).is_file()]
    (target / _UNFINISHED).write_bytes(b"")
    for name in files:
        (target / name).write_bytes((local / name).read_bytes())
    for name in set(files_in(target)) - {*files, _UNFINISHED}:
        (target / name).unlink()
    (target / _UNFINISHED).unlink()


_UNFINISHED = ".unfinished"


def is_unfinished(folder: Path) -> bool:
    """Whether a folder in a store is what a killed `put_folder` has left."""
    return not is_local(folder) and (folder / _UNFINISHED).exists()


@functools.cache
def _copies() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="avit_jax_")  # taken away when Python ends


@functools.cache
def local_copy(address: str) -> Path:
    """A copy on the local disk, as long as this process lives, of a file or a flat folder.

    Raises:
        FileNotFoundError: there is nothing.
    """
    source = as_path(address)
    target = Path(_copies().name) / uuid.uuid4().hex / source.name
    if source.is_dir():
        target.mkdir(parents=True)
        for path in children(source):
            if path.is_file():
                (target / path.name).write_bytes(path.read_bytes())
    else:
        content = source.read_bytes()
        target.parent.mkdir(parents=True)
        target.write_bytes(content)
    return target


def on_local_disk(path: Path) -> Path:
    """The path itself, or a copy of a file in a store for readers that want a real file."""
    return path if is_local(path) else local_copy(os.fspath(path))


def refuse_unwritable(flag: str, folder: Path) -> None:
    """Raises UserError unless objects can be written to, and removed from, a place in a store."""
    probe = folder / f".avit_jax{uuid.uuid4().hex[:8]}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except Exception as error:
        told = in_words(error, f"{flag} {folder}")
        raise told if told is not None else error from error
