"""A folder of class folders, `root/{train,val}/class/*` or `root/class/*`, as a source.

The classes are the folders under `train`, sorted by name, for every split: so a class has the same
number in training and in validation even where validation lacks some class. All images below a
class folder are of that class, whatever its subfolders are for. Without a folder of validation
images a share of the training images of each class is held out instead; without one of training
images either, the root itself is that.
"""

import logging
import os
from collections.abc import Sequence

from avit_jax.data.example import Example, read_file
from avit_jax.data.held_out import held_out
from avit_jax.data.listing import (
    composed,
    files_below,
    is_other_file,
    shortened,
    tell_left_out,
    visible_entries,
)
from avit_jax.errors import UserError
from avit_jax.runtime.stores import as_path

logger = logging.getLogger(__name__)

TRAIN, VALIDATION = "train", "validation"
SPLIT_FOLDERS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "validation", "valid", "test"),
}
LAYOUT = "root/train/CLASS/* and root/val/CLASS/*"
ONE_FOLDER = "root/CLASS/*"


class FolderSource:
    """The files of one split of a folder of class folders; `listing.py` says which count."""

    name = "folder"

    def __init__(self, *, split: str, data_dir: str, holdout: float = 0.0) -> None:
        """Lists the files of `split` ("train", "validation" or a folder's name) under `data_dir`.

        Args:
            split: whose files.
            data_dir: the root.
            holdout: share of each class's training images that are those of validation, where that
                has no folder; 0 refuses such a root.

        Raises:
            UserError: there is no such folder; the message says which ones there are; a class
                folder is empty or a link that leads nowhere, or validation has a class that
                training lacks.
        """
        self.class_names = class_names(data_dir)
        shares = bool(holdout) and split in SPLIT_FOLDERS and not _has_folder(data_dir, VALIDATION)
        root = _split_folder(data_dir, TRAIN if shares else split)
        folders = _class_folders(root)
        unknown = sorted(folders.keys() - set(self.class_names))
        if unknown:
            raise UserError(
                f"{root} has class folders that the training folder lacks ({shortened(unknown)}); "
                "give each class a folder of training images or remove it"
            )
        self._paths: list[str] = []
        self._labels: list[int] = []
        listed, left_out = 0, []
        for label, class_name in enumerate(self.class_names):
            paths, others = _files_of_class(folders.get(class_name, ()))
            left_out += [os.path.join(class_name, path) for path in others]
            listed += len(paths)
            if shares:
                below = [os.path.relpath(path, root) for path in paths]
                out = held_out(below, holdout)
                wanted = split == VALIDATION
                paths = [path for at, path in enumerate(paths) if (at in out) == wanted]
            self._paths += paths
            self._labels += [label] * len(paths)
        if not self._paths:
            raise UserError(f"{root} has no class folders with images; lay it out as {LAYOUT}")
        if shares and split == VALIDATION:
            logger.info(
                "%s has no folder of validation images: %d of its %d images are held out of "
                "training (config.data.holdout %g)",
                data_dir,
                len(self._paths),
                listed,
                holdout,
            )
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
        UserError: there is no such folder, or it is not laid out as one.
    """
    if not as_path(data_dir).is_dir():
        raise UserError(
            f"data.dir {data_dir!r} is not a folder; write the root of a folder laid out "
            f"as {LAYOUT}"
        )
    return tuple(_class_folders(_split_folder(data_dir, TRAIN)))


def _split_folder(data_dir: str, split: str) -> str:
    """The folder of a split; `Train` counts as `train` where there is no other."""
    present = _folders(data_dir)
    found = _present(present, split)
    if found is not None:
        return os.path.join(data_dir, found)
    if split == TRAIN and _is_one_folder(data_dir, present):
        return data_dir
    names = ", ".join(present) or "no folders"
    share = " (or write --config.data.holdout 0.2)" if split == VALIDATION else ""
    raise UserError(
        f"{data_dir} has no folder for split {split!r} but {names}; lay it out as {LAYOUT}{share}, "
        f"or as {ONE_FOLDER} with images in each of several classes, or write a folder's name into "
        "config.data.train_split or eval_split"
    )


def _is_one_folder(data_dir: str, present: list[str]) -> bool:
    """Whether folders are classes themselves: several, each with images of its own, and no splits.

    Images further down do not count: a folder around those of data and runs is no data.
    """
    splits = any(_present(present, split) for split in SPLIT_FOLDERS)
    return (
        len(present) > 1
        and not splits
        and all(_has_images(os.path.join(data_dir, folder)) for folder in present)
    )


def _has_images(folder: str) -> bool:
    entries = visible_entries(folder)
    return any(not entry.is_dir() and not is_other_file(entry.name) for entry in entries)


def _has_folder(data_dir: str, split: str) -> bool:
    return _present(_folders(data_dir), split) is not None


def _folders(folder: str) -> list[str]:
    return [entry.name for entry in visible_entries(folder) if entry.is_dir()]


def _present(folders: list[str], split: str) -> str | None:
    """The first of the names that a split may have which is among `folders`."""
    for name in SPLIT_FOLDERS.get(split, (split,)):
        alike = [folder for folder in folders if folder.lower() == name.lower()]
        if alike:
            return name if name in alike else alike[0]
    return None


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


def _files_of_class(folders: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths of the images of one class, and of its other files, these below their folder."""
    paths, left_out = [], []
    for folder in folders:
        files, others = files_below(folder)
        if not files:
            raise UserError(f"class folder {folder} has no files; put images into it or remove it")
        paths += [os.path.join(folder, path) for path in files]
        left_out += others
    return paths, left_out


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
