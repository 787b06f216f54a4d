"""From a name in a config to a source of labelled images.

`digits` is in the package, `folder` is a folder of class folders, and any other name is a dataset
of TensorFlow Datasets.
"""

import os

from avit_jax.data.digits import DigitsSource
from avit_jax.data.example import BadExample, Example, Source
from avit_jax.data.folder import LAYOUT, FolderSource
from avit_jax.data.imagenet_variants import ImagenetVariant, is_variant
from avit_jax.data.tfds_source import TfdsSource
from avit_jax.errors import UserError

__all__ = ["BadExample", "Example", "Source", "open_source"]


def open_source(
    name: str, *, split: str, data_dir: str | None = None, holdout: float = 0.0
) -> Source:
    """Opens one split of a dataset.

    Args:
        name: `digits`, `folder`, or a TFDS name such as `imagenet2012` or `imagenette/160px-v2`.
        split: `train` or `validation`; of the digits also "forms 1-3"; for TFDS any of its splits,
            also `train[:50%]`.
        data_dir: where the data lie, also `gs://bucket/path` for TFDS; without it, the
            environment's TFDS_DATA_DIR.
        holdout: of a folder without validation images, see `FolderSource`.

    Raises:
        UserError: with one sentence that says what to do.
    """
    if name == "digits":
        return DigitsSource(split=split)
    if name == "folder":
        if not data_dir:
            raise UserError(
                f"data.name 'folder' needs data.dir; write the root of a folder laid out "
                f"as {LAYOUT}"
            )
        return FolderSource(split=split, data_dir=data_dir, holdout=holdout)
    kind = ImagenetVariant if is_variant(name) else TfdsSource
    return kind(name, split=split, data_dir=data_dir or os.environ.get("TFDS_DATA_DIR"))
