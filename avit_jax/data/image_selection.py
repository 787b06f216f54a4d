"""Some images of many: those that a report shows, and those that cost and speed are measured on.

They lie evenly over the source, so that a folder sorted by class is not represented by its first
class alone, and the same command takes the same images again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avit_jax.data.augment import Augment, eval_image
from avit_jax.data.example import BadExample, Example, Source, read_example
from avit_jax.data.image_files import FileSource
from avit_jax.errors import UserError
from avit_jax.runtime.files import is_local
from avit_jax.runtime.stores import as_path

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Some images of a source, itself a source; picklable as far as the source is.

    Attributes:
        source: of all images.
        indices: of the chosen ones, in order.
        labelled: whether the class of each chosen image is known.
        title: what the images are, for people.
    """

    source: Source
    indices: tuple[int, ...]
    labelled: tuple[bool, ...]
    title: str

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        """Returns a chosen image; raises BadExample where it cannot be read."""
        return self.source[self.indices[index]]

    def describe(self, index: int) -> str:
        """Returns the image's name."""
        return self.source.describe(self.indices[index])


def labelled(source: Source, indices: Sequence[int], *, split: str) -> Selection:
    """Images of a split of a dataset, whose classes are all known."""
    return Selection(source, tuple(indices), (True,) * len(indices), f"{source.name}, {split}")


def given_files(path: str, limit: int, *, class_names: Sequence[str]) -> Selection:
    """At most `limit` images of a file or folder, see `FileSource`."""
    source = FileSource(path, class_names=class_names)
    chosen = evenly_spaced(len(source), limit)
    name = Path(path).absolute().name if is_local(path) else as_path(path).name
    title = name.encode("utf-8", "replace").decode("utf-8")  # a name may hold any bytes
    return Selection(source, chosen, tuple(source.labelled(index) for index in chosen), title)


def evenly_spaced(total: int, limit: int) -> tuple[int, ...]:
    """At most `limit` of the indices 0..total-1, spread evenly, the first among them."""
    count = min(total, limit)
    return tuple(index * total // count for index in range(count))


def read_selection(
    selection: Selection, *, size: int, augment: Augment
) -> tuple[np.ndarray, np.ndarray]:
    """The images uint8 `[n, size, size, 3]` as evaluation cuts them, and their labels `[n]`.

    Images that cannot be read are left out, with a warning.

    Raises:
        UserError: none can be read.
    """
    images, labels = [], []
    for index in range(len(selection)):
        try:
            example = read_example(selection, index)
            images.append(eval_image(example.image, size=size, augment=augment))
            labels.append(example.label)
        except BadExample as error:
            logger.warning("%s %s and is left out", selection.describe(index), error)
    if not images:
        raise UserError(f"{selection.name} has no readable image: choose another split.")
    return np.stack(images), np.asarray(labels)
