"""The types that every source of images shares: Example, Source and BadExample.

A source gives random access to *encoded* examples, so that decoding happens once, in the pipeline's
threads or worker processes, and a broken file is found where it can be replaced.
"""

import os
import stat
from typing import NamedTuple, Protocol

import numpy as np

from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local


class BadExample(Exception):
    """An example that cannot be used; its text is the reason, as a predicate ("cannot be ...")."""


class Example(NamedTuple):
    """One labelled image: the file's bytes, or pixels as uint8 [H, W] or [H, W, 1 | 3 | 4]."""

    image: bytes | np.ndarray
    label: int


class Source(Protocol):
    """Random access to the labelled images of one split; picklable, safe to read from threads."""

    name: str
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Returns example `index`; raises BadExample where it cannot be read."""
        ...

    def describe(self, index: int) -> str:
        """Returns the example's name for messages: a file's path, or `name train[17]`."""
        ...


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the content of a regular file.

    Raises:
        BadExample: it cannot be read, or is a pipe or device, whose reading might wait for ever.
    """
    if not is_local(path):
        try:
            return stores.filesystem(stores.as_path(path)).cat_file(os.fspath(path))
        except FileNotFoundError as error:
            raise BadExample("cannot be read: there is no such object") from error
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadExample("cannot be read: it is no regular file")
            return file.read()
    except OSError as error:
        raise BadExample(f"cannot be read: {error.strerror or error}") from error


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe although nobody writes into it; Windows has no such pipes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def message_of(error: Exception) -> str:
    """Returns what an error says, in one line; where it says nothing, its kind."""
    return " ".join(str(error).split()) or type(error).__name__


def read_example(source: Source, index: int) -> Example:
    """Returns an example whose label is known to be a class of the source.

    Raises:
        BadExample: the example cannot be read, or its label is outside the source's classes.
    """
    example = source[index]
    num_classes = len(source.class_names)
    if not 0 <= example.label < num_classes:
        raise BadExample(f"has label {example.label}, outside 0..{num_classes - 1}")
    return example
