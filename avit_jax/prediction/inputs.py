"""Images as a Python user has them: paths, folders, bytes, Pillow's images, arrays; as a source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import IO, Any

import numpy as np
from PIL import Image

from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample, Example
from avit_jax.data.image_files import FileSource
from avit_jax.errors import UserError
from avit_jax.runtime.stores import as_path

Bytes = bytes | bytearray | memoryview
# Bytes are those of a file, which may also be open (or an `io.BytesIO`). Arrays are uint8 `[H, W]`
# or `[H, W, 1 | 3 | 4]`, or `[B, H, W, C]`.
ImageLike = str | os.PathLike[str] | Bytes | IO[bytes] | Image.Image | np.ndarray

_PATH = str | os.PathLike


class GivenImages:
    """Images in the order in which they were given, those of a folder at its place.

    Args:
        images: one, or several. A folder is walked to the bottom, as `--mode predict` does.
        class_names: of the model.

    Attributes:
        is_single: whether one image was given, in no list, folder or array of several.

    Raises:
        UserError: a path that is not there, an array that is no image, or another type.
    """

    name = "images"

    def __init__(self, images: ImageLike | Iterable[ImageLike], *, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        self._images: list[tuple[str, Any]] = []
        is_one = _is_one(images)
        several = [images] if is_one or not isinstance(images, Iterable) else images
        for position, image in enumerate(several):
            self._add(image, f"image {position}")
        is_folder = isinstance(images, _PATH) and as_path(images).is_dir()
        self.is_single = is_one and not is_folder and getattr(images, "ndim", 0) < 4

    def _add(self, image: Any, name: str) -> None:
        if isinstance(image, _PATH):
            files = FileSource(image, class_names=self.class_names)
            path = as_path(image)
            root = path if path.is_dir() else path.parent
            self._images += [
                (os.fspath(root / files.describe(index)), (files, index))
                for index in range(len(files))
            ]
        elif isinstance(image, Image.Image):
            self._images.append((getattr(image, "filename", "") or name, image))
        elif isinstance(image, Bytes):
            self._images.append((name, bytes(image)))
        elif _is_file(image):
            path = getattr(image, "name", None)
            self._images.append((path if isinstance(path, str) else name, _content(image, name)))
        elif hasattr(image, "__array__"):
            array = np.asarray(image)
            if array.dtype.kind in "OSU":
                raise UserError(
                    f"{name} is an array of {array.dtype}, not of pixels: pass .tolist() of it, if "
                    "it holds paths or images."
                )
            parts = array if array.ndim == 4 else [array]
            names = [f"{name}[{row}]" for row in range(len(parts))] if array.ndim == 4 else [name]
            for part, part_name in zip(parts, names, strict=True):
                _refuse_other_arrays(part, part_name)
                self._images.append((part_name, part))
        else:
            raise UserError(
                f"{name} is a {type(image).__name__}: pass a path, a file's bytes, an image of "
                "Pillow or an array of uint8 [H, W, 3]."
            )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        """Returns the image, whose class is not known; raises BadExample where it is unreadable."""
        _, image = self._images[index]
        if isinstance(image, tuple):
            files, position = image
            return files[position]._replace(label=0)
        return Example(np.asarray(decode(image)), 0)

    def describe(self, index: int) -> str:
        """Returns the path as it was given, or "image 2"; of a batch of arrays "image 2[0]"."""
        return self._images[index][0]

    def labelled(self, index: int) -> bool:
        """Returns False: nobody has said what is on the images."""
        return False


def _is_one(images: Any) -> bool:
    is_known = isinstance(images, _PATH | Bytes | Image.Image)
    return is_known or _is_file(images) or hasattr(images, "__array__")


def _is_file(image: Any) -> bool:
    return hasattr(image, "read") and not isinstance(image, os.PathLike)


def _content(file: Any, name: str) -> bytes:
    """All that an opened file holds, as Pillow takes it; of a stream what is left."""
    if file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise UserError(f"{name} is a file opened for text: open it with mode 'rb'.")
    return content


def _refuse_other_arrays(array: np.ndarray, name: str) -> None:
    try:
        decode(array)
    except (BadExample, TypeError, ValueError) as error:
        raise UserError(
            f"{name} {error}: pass pixels 0..255 as uint8, before any normalisation."
        ) from error
