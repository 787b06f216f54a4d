"""Folders of images in an object store, where there are objects with slashes in their names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from avit_jax.runtime import stores


@dataclasses.dataclass(frozen=True)
class StoredEntry:
    """What `os.DirEntry` says of an entry of a folder on a disk; there are no links."""

    name: str
    path: str
    folder: bool

    def is_dir(self) -> bool:
        return self.folder

    def is_symlink(self) -> bool:
        return False


def entries(folder: str | os.PathLike[str]) -> list[StoredEntry]:
    """What is directly in a folder, by name."""
    top = os.fspath(folder).rstrip("/")
    found = stores.filesystem(stores.as_path(top)).ls(top, detail=True)
    names = [(one["name"].rstrip("/").rpartition("/")[2], one["type"]) for one in found]
    inside = [
        StoredEntry(name, f"{top}/{name}", kind == "directory")
        for name, kind in names
        if not top.endswith(f"/{name}") or kind != "directory"  # a marker of the folder itself
    ]
    return sorted(inside, key=lambda entry: entry.name)


def files_below(
    folder: str | os.PathLike[str],
    *,
    hidden: Callable[[str], bool],
    is_other: Callable[[str], bool],
) -> tuple[list[str], list[str]]:
    """Images in a folder and below, and the other files, in the order of `listing.files_below`.

    Args:
        folder: in a store.
        hidden: whether a name, of a file or of a folder around it, is left out without a word.
        is_other: whether a file's name says that it is no image.
    """
    visible = [
        name
        for name in stores.files_in(stores.as_path(folder))
        if not any(map(hidden, name.split("/")))
    ]
    visible.sort(key=_order)
    images = [name for name in visible if not is_other(name)]
    return images, [name for name in visible if is_other(name)]


def _order(name: str) -> list[tuple[bool, str]]:
    """Files of a folder come before its subfolders."""
    *folders, file = name.split("/")
    return [*((True, folder) for folder in folders), (False, file)]
