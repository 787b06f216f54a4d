"""A number of classes that follows from the folder of images that a config names."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict, FieldReference

from avit_jax.data.folder import class_names


class ClassesOfFolder(FieldReference):
    """As many as the folder `data.dir` has, once a config or command line names one.

    Whatever is written to the setting itself has the last word, as with any other. Reading it
    raises UserError where the folder is not laid out as one.
    """

    def __init__(self, data: ConfigDict, *, otherwise: int):
        """Follows `config.data`; it is `otherwise` where that names no folder of images."""
        super().__init__(otherwise)
        self._data = data

    def set(self, value: Any, type_safe: bool = True) -> None:
        """Stop to follow the folder."""
        self._data = None
        super().set(value, type_safe)

    def get(self) -> int:
        """The number of class folders under its training images, or what was set."""
        if self._data is None or self._data.name != "folder" or not self._data.dir:
            return super().get()
        return len(class_names(self._data.dir))
