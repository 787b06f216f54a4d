"""A folder of images that a run reads, and what may happen to one of them or to all."""

from __future__ import annotations

import functools
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from avit_jax.data import digits

PER_CLASS = {"train": 6, "val": 3}


def make_data(root: Path) -> None:
    """A folder of class folders with digits as PNG files."""
    arrays = digits.load()
    for label in range(10):
        of_class = np.flatnonzero(arrays["labels"] == label)
        for split, count in PER_CLASS.items():
            folder = root / split / str(label)
            folder.mkdir(parents=True)
            taken, of_class = of_class[:count], of_class[count:]
            for index in taken:
                pixels = (arrays["images"][index] * 15).astype(np.uint8).repeat(4, 0).repeat(4, 1)
                Image.fromarray(pixels).save(folder / f"{index}.png")


def first_image(data: Path) -> Path:
    """One training image, or the last of a folder to predict, which comes late."""
    folder = data / "train" / "3"
    return sorted((folder if folder.exists() else data).glob("*.png"))[-1]


def vanish(data: Path) -> None:
    """A file is removed."""
    first_image(data).unlink()


def class_vanishes(data: Path) -> None:
    """A class folder is removed, with more images than may be bad."""
    shutil.rmtree(first_image(data).parent)


def all_vanish(data: Path) -> None:
    """The whole folder is renamed."""
    data.rename(data.with_name("elsewhere"))


def become_fifo(data: Path) -> None:
    """A file becomes a pipe that nobody writes into."""
    file = first_image(data)
    file.unlink()
    os.mkfifo(file)


def become_folder(data: Path) -> None:
    """A file becomes a folder."""
    file = first_image(data)
    file.unlink()
    file.mkdir()


def become_socket(data: Path) -> None:
    """A file becomes a socket."""
    file = first_image(data)
    file.unlink()
    place = os.getcwd()
    os.chdir(file.parent)  # whose names may be longer than those of sockets
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(file.name)
    os.chdir(place)


def link_to(target: str, data: Path) -> None:
    """A file becomes a link."""
    file = first_image(data)
    file.unlink()
    file.symlink_to(target)


def truncate(size: int, data: Path) -> None:
    """A file is cut."""
    os.truncate(first_image(data), size)


def become_text(data: Path) -> None:
    """A file holds something else."""
    first_image(data).write_text("<html>not found</html>")


def forbid(data: Path) -> None:
    """A file may not be read; the superuser may, unless it obeys modes (`superuser.py`)."""
    first_image(data).chmod(0)


ONE_BAD: dict[str, Callable[[Path], None]] = {
    "vanishes": vanish,
    "becomes a FIFO": become_fifo,
    "becomes a folder": become_folder,
    "becomes a socket": become_socket,
    "becomes a dangling link": functools.partial(link_to, "/nowhere/x.png"),
    "becomes a link to itself": functools.partial(link_to, "itself.png"),
    "becomes a link to a device": functools.partial(link_to, "/dev/zero"),
    "is truncated": functools.partial(truncate, 40),
    "is emptied": functools.partial(truncate, 0),
    "is a web page": become_text,
    "may not be read": forbid,
}
TOO_MANY: dict[str, Callable[[Path], None]] = {
    "a class vanishes": class_vanishes,
    "all vanish": all_vanish,
}


def one_more(data: Path) -> None:
    """A file is there twice."""
    file = first_image(data)
    shutil.copyfile(file, file.with_name("twice.png"))


def other_name(data: Path) -> None:
    """A class has another name."""
    folder = first_image(data).parent
    for split in PER_CLASS:
        (data / split / folder.name).rename(data / split / "three")


def one_class_more(data: Path) -> None:
    """There is another class."""
    for split in PER_CLASS:
        shutil.copytree(data / split / "3", data / split / "another")


def parts_exchanged(data: Path) -> None:
    """What was to be trained on is evaluated on, and the other way round."""
    train, val = data / "train", data / "val"
    train.rename(data / "between")
    val.rename(train)
    (data / "between").rename(val)


# Change -> what is said, and whether the training may go on.
CHANGED_BETWEEN: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "an image has gone": (vanish, "other images|not those", True),
    "an image is there twice": (one_more, "other images|not those", True),
    "the two parts were exchanged": (parts_exchanged, "other images|not those", True),
    "a class has another name": (other_name, "classes of the data are not those", False),
    "there is one class more": (one_class_more, "classes", False),
}
