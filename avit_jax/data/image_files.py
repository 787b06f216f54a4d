"""The image file or folder that a user names on the command line, as a source.

A folder is walked to the bottom, so that class folders and folders by date or camera both work.
Files are listed once, in an order that depends on their names alone: one command sees the same
images in the same places today, tomorrow and on every host.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from avit_jax.data.example import Example, read_file
from avit_jax.data.listing import composed, files_below, tell_left_out
from avit_jax.errors import UserError
from avit_jax.runtime.stores import as_path


class FileSource:
    """Image files, each of the class that the innermost folder around it is named after.

    Args:
        path: of a file or folder; see `listing.py` for what of a folder is left out. Links are
            followed.
        class_names: of the model.

    Raises:
        UserError: there is no such file or folder, a folder that cannot be read, or not one file.
    """

    name = "files"

    def __init__(self, path: str | os.PathLike[str], *, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self._classes = {composed(name): label for label, name in enumerate(self.class_names)}
        path = as_path(path)
        if not path.exists():
            raise UserError(
                f"there is no file or folder {str(path)!r}: write the path of an image, of a "
                "folder of images, or of a folder of class folders."
            )
        self._root = os.fspath(path if path.is_dir() else path.parent)
        # Paths below the root; no more, because there may be millions.
        self._files, others = files_below(path) if path.is_dir() else ([path.name], [])
        tell_left_out(others, path)
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
            if composed(folder) in self._classes:
                return self._classes[composed(folder)]
        return None
