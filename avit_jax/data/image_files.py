"""The image file or folder that a user names on the command line, as a source.

A folder is walked to the bottom, so that class folders and folders by date or camera both work.
Files are listed once, in an order that depends on their names alone: one command sees the same
images in the same places today, tomorrow and on every host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from avit_jax.data.example import Example, read_file
from avit_jax.errors import UserError


class FileSource:
    """Image files, each of the class that the innermost folder around it is named after.

    Args:
        path: of a file or folder. Hidden files and folders are left out, links are followed.
        class_names: of the model.

    Raises:
        UserError: there is no such file or folder, a folder that cannot be read, or not one file.
    """

    name = "files"

    def __init__(self, path: str | os.PathLike[str], *, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self._classes = {name: label for label, name in enumerate(self.class_names)}
        path = Path(path)
        if not path.exists():
            raise UserError(
                f"there is no file or folder {str(path)!r}: write the path of an image, of a "
                "folder of images, or of a folder of class folders."
            )
        self._root = os.fspath(path if path.is_dir() else path.parent)
        # Paths below the root; no more, because there may be millions.
        self._files = list(files_below(path)) if path.is_dir() else [path.name]
        if not self._files:
            raise UserError(
                f"there is no image in {path}: write a folder with images in it or in its "
                "subfolders."
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        """Returns the file's bytes and its class, 0 where it is not known; may raise BadExample."""
        content = read_file(os.path.join(self._root, self._files[index]))
        return Example(content, self._label(index) or 0)

    def describe(self, index: int) -> str:
        """Returns the file's path inside the folder that was given."""
        return self._files[index]

    def labelled(self, index: int) -> bool:
        """Returns whether the file lies in a folder with the name of a class."""
        return self._label(index) is not None

    def _label(self, index: int) -> int | None:
        folders = os.path.dirname(self._files[index]).split(os.sep)[::-1]
        for folder in (*folders, os.path.basename(os.path.abspath(self._root))):
            if folder in self._classes:
                return self._classes[folder]
        return None


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Paths, relative to `folder`, of the files in it, then of those in its subfolders by name.

    A link to a folder that it lies in is left out, for it has no bottom. A link that leads nowhere
    counts as a file, which cannot be read; pipes and devices, whose reading may wait for ever, do
    not.

    Raises:
        UserError: a folder cannot be listed.
    """
    yield from _files_below(os.fspath(folder), "", ())


def _files_below(root: str, below: str, outer: tuple[tuple[int, int], ...]) -> Iterator[str]:
    folder = os.path.join(root, below) if below else root
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            visible = sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise UserError(
            f"folder {folder!r} cannot be listed ({error.strerror}): make it readable, or move it "
            "out of the input."
        ) from error
    identity = status.st_dev, status.st_ino
    if identity in outer:
        return
    yield from (os.path.join(below, entry.name) for entry in visible if _is_file(entry))
    for entry in visible:
        if entry.is_dir():
            yield from _files_below(root, os.path.join(below, entry.name), (*outer, identity))


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
