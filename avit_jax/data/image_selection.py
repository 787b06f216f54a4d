"""A few images chosen out of many, evenly spaced: of the evaluation split, of folders or files.

Sources are often sorted by class, so the first images would all be of one class. Evenly spaced ones
are not, and the same command chooses the same images again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from avit_jax.data.example import Example, Source
from avit_jax.data.image_files import FileSource, class_names, evaluation_source

__all__ = ["Selection", "class_names", "evaluation_split", "evenly_spaced", "given_files"]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Some images of a source, which is a `Source` itself; picklable if the source is.

    Attributes:
        source: of all images.
        indices: of the chosen ones, in order.
        labelled: whether the class of each chosen image is known.
        title: what the images are, to be shown to people.
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
        """Returns the number of chosen images."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        """Returns a chosen image; raises BadExample where it cannot be read."""
        return self.source[self.indices[index]]

    def describe(self, index: int) -> str:
        """Returns the image's name."""
        return self.source.describe(self.indices[index])


def evaluation_split(config: ConfigDict, limit: int) -> Selection:
    """Images of `config.data.eval_split`.

    Raises:
        UserError: the data are not there, or have another number of classes than the model.
    """
    source = evaluation_source(config)
    chosen = evenly_spaced(len(source), limit)
    title = f"{source.name}, {config.data.eval_split}"
    return Selection(source, chosen, (True,) * len(chosen), title)


def given_files(paths: Sequence[str], limit: int, *, class_names: Sequence[str]) -> Selection:
    """Images of files and folders, see `FileSource`."""
    source = FileSource(paths, class_names=class_names)
    chosen = evenly_spaced(len(source), limit)
    title = Path(paths[0]).absolute().name if len(paths) == 1 else f"{len(paths)} inputs"
    title = title.encode("utf-8", "replace").decode("utf-8")  # a name may hold any bytes
    return Selection(source, chosen, tuple(source.labelled(index) for index in chosen), title)


def evenly_spaced(total: int, limit: int) -> tuple[int, ...]:
    """At most `limit` of the indices 0..total-1, spread evenly, the first among them."""
    count = min(total, limit)
    return tuple(index * total // count for index in range(count))
