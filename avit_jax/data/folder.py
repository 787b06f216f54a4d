"""A folder of class folders, `root/{train,val}/class/*`, as a source.

The classes are the folders under `train`, sorted by name, for every split: so a class has the same
number in training and in validation even where validation lacks some class. All images below a
class folder are of that class, whatever its subfolders are for.
"""

import logging
import os

from avit_jax.data.example import Example, read_file
from avit_jax.data.listing import (
    composed,
    files_below,
    is_other_file,
    shortened,
    tell_left_out,
    visible_entries,
)
from avit_jax.errors import UserError

logger = logging.getLogger(__name__)

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "test"),
}
LAYOUT = "root/train/CLASS/* and root/val/CLASS/*"


class FolderSource:
    """The files of one split of a folder of class folders; `listing.py` says which count."""

    name = "folder"

    def __init__(self, *, split: str, data_dir: str) -> None:
        """Lists the files of `split` ("train", "validation" or a folder's name) under `data_dir`.

        Raises:
            UserError: there is no such folder; the message says which ones there are; a class
                folder is empty or a link that leads nowhere, or validation has a class that
                training lacks.
        """
        self.class_names = class_names(data_dir)
        root = _split_folder(data_dir, split)
        folders = _class_folders(root)
        unknown = sorted(folders.keys() - set(self.class_names))
        if unknown:
            raise UserError(
                f"{root} has class folders that the training folder lacks ({shortened(unknown)}); "
                "give each class a folder of training images or remove it"
            )
        self._paths: list[str] = []
        self._labels: list[int] = []
        left_out: list[str] = []
        for label, class_name in enumerate(self.class_names):
            for folder in folders.get(class_name, ()):
                files, others = files_below(folder)
                left_out += [os.path.join(class_name, path) for path in others]
                if not files:
                    raise UserError(
                        f"class folder {folder} has no files; put images into it or remove it"
                    )
                self._paths += [os.path.join(folder, path) for path in files]
                self._labels += [label] * len(files)
        if not self._paths:
            raise UserError(f"{root} has no class folders with images; lay it out as {LAYOUT}")
        tell_left_out(left_out, root)
        _warn_of_files_beside(root)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Example:
        """Returns the file's bytes and its class; raises BadExample where it cannot be read."""
        return Example(read_file(self._paths[index]), self._labels[index])

    def describe(self, index: int) -> str:
        """Returns the file's path."""
        return self._paths[index]


def class_names(data_dir: str) -> tuple[str, ...]:
    """Names of the classes of a folder, sorted: those of its training images.

    Raises:
        UserError: there is no such folder, or none of training images in it.
    """
    if not os.path.isdir(data_dir):
        raise UserError(
            f"data.dir {data_dir!r} is not a local folder; write the root of a folder laid out "
            f"as {LAYOUT}"
        )
    return tuple(_class_folders(_split_folder(data_dir, "train")))


def _split_folder(data_dir: str, split: str) -> str:
    """The folder of a split; `Train` counts as `train` where there is no other."""
    present = [entry.name for entry in visible_entries(data_dir) if entry.is_dir()]
    for name in SPLIT_FOLDERS.get(split, (split,)):
        alike = [folder for folder in present if folder.lower() == name.lower()]
        if alike:
            return os.path.join(data_dir, name if name in alike else alike[0])
    found = ", ".join(present) or "no folders"
    raise UserError(
        f"{data_dir} has no folder for split {split!r} but {found}; lay it out as {LAYOUT}, or "
        "write a folder's name into config.data.train_split or eval_split"
    )


def _class_folders(root: str) -> dict[str, list[str]]:
    """Paths of each class's folders by its name: names that only look alike are one.

    In the order of the names as they are on disk, of the first where several are one class: that of
    a run is the meaning of its logits, and a composed name may have another place in the alphabet.
    """
    found: dict[str, list[str]] = {}
    for entry in visible_entries(root):
        if entry.is_dir():
            found.setdefault(composed(entry.name), []).append(entry.path)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            raise UserError(
                f"{entry.path} is a link to {os.readlink(entry.path)!r}, which is not there, so a "
                "class may be missing: mend the link or remove it"
            )
    return found


def _warn_of_files_beside(root: str) -> None:
    """Says which files lie beside the class folders, where they are of no class."""
    beside = [
        entry.name
        for entry in visible_entries(root)
        if not entry.is_dir() and not is_other_file(entry.name)
    ]
    if beside:
        logger.warning(
            "left out what lies beside the class folders of %s (%d: %s)",
            root,
            len(beside),
            shortened(beside),
        )
