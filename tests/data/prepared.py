"""Datasets of TFDS, prepared as array_record with their own features, of a few small images."""

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image


def write(name: str, data_dir: Path, *, split: str, examples: list[dict]) -> None:
    """Writes a split as TFDS would; images are drawn where an example has none.

    Args:
        name: of a dataset that TFDS knows, with its configuration.
        data_dir: root of all prepared datasets.
        split: its only one.
        examples: other features of each image.
    """
    builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
    features = builder.info.features
    folder = Path(builder.data_dir)
    folder.mkdir(parents=True)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder,
        dataset_name=builder.name,
        split=split,
        filetype_suffix="array_record",
    )
    info = tfds.core.SplitInfo(
        name=split, shard_lengths=[len(examples)], num_bytes=1, filename_template=template
    )
    writer = array_record_module.ArrayRecordWriter(
        str(folder / f"{builder.name}-{split}.array_record-00000-of-00001"), "group_size:1"
    )
    for number, example in enumerate(examples):
        given = {"image": jpeg(number), "file_name": f"{number}.JPEG"} | example
        writer.write(features.serialize_example(given))
    writer.close()
    builder.info.set_splits(tfds.core.splits.SplitDict([info]))
    builder.info.write_to_directory(folder)


def jpeg(seed: int) -> bytes:
    """A photograph, smooth, 224 x 224 pixels."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(corners).resize((224, 224), Image.Resampling.BILINEAR).save(buffer, "JPEG")
    return buffer.getvalue()
