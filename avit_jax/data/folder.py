"""A folder of class folders, `root/{train,val}/class/*`, as a source.

The classes are the folders under `train`, sorted by name, for every split: so a class has the same
number in training and in validation even where validation lacks some class.
"""

import os

from avit_jax.data.example import Example, read_file
from avit_jax.errors import UserError

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "test"),
}
LAYOUT = "root/train/CLASS/* and root/val/CLASS/*"


class FolderSource:
    """The files of one split of a folder of class folders; hidden files are ignored."""

    name = "folder"

    def __init__(self, *, split: str, data_dir: str) -> None:
        """Lists the files of `split` ("train", "validation" or a folder's name) under `data_dir`.

        Raises:
            UserError: there is no such folder; the message says which ones there are; a class
                folder is empty, or validation has a class that training lacks.
        """
        if not os.path.isdir(data_dir):
            raise UserError(
                f"data.dir {data_dir!r} is not a local folder; write the root of a folder laid out "
                f"as {LAYOUT}"
            )
        self.class_names = tuple(_folders(_split_folder(data_dir, "train")))
        root = _split_folder(data_dir, split)
        unknown = sorted(set(_folders(root)) - set(self.class_names))
        if unknown:
            raise UserError(
                f"{root} has class folders that the training folder lacks ({', '.join(unknown)}); "
                "give each class a folder of training images or remove it"
            )
        self._paths: list[str] = []
        self._labels: list[int] = []
        for label, class_name in enumerate(self.class_names):
            folder = os.path.join(root, class_name)
            files = _files(folder) if os.path.isdir(folder) else None
            if files == []:
                raise UserError(
                    f"class folder {folder} has no files; put images directly into it or remove it"
                )
            self._paths += files or []
            self._labels += [label] * len(files or [])
        if not self._paths:
            raise UserError(f"{root} has no class folders with images; lay it out as {LAYOUT}")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        """Returns the file's bytes and its class; raises BadExample where it cannot be read."""
        return Example(read_file(self._paths[index]), self._labels[index])

    def describe(self, index: int) -> str:
        """Returns the file's path."""
        return self._paths[index]


def _split_folder(data_dir: str, split: str) -> str:
    present = _folders(data_dir)
    for name in SPLIT_FOLDERS.get(split, (split,)):
        if name in present:
            return os.path.join(data_dir, name)
    found = ", ".join(present) or "no folders"
    raise UserError(
        f"{data_dir} has no folder for split {split!r} but {found}; lay it out as {LAYOUT}"
    )


def _folders(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _files(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return sorted(e.path for e in entries if e.is_file() and not e.name.startswith("."))
