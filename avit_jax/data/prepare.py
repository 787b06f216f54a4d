"""Downloads a TFDS dataset and writes it as array_record, once, before training.

    python -m avit_jax.data.prepare cifar10 --data_dir /data/tfds
    python -m avit_jax.data.prepare imagenet2012 --data_dir /data/tfds --manual_dir /data/tars

array_record must be asked for here: the default of TFDS, tfrecord, has no random access. Only this
command needs TensorFlow (`pip install 'avit_jax[prepare]'`); training then reads the files without.
ImageNet's licence forbids automatic download: put ILSVRC2012_img_train.tar and
ILSVRC2012_img_val.tar, from image-net.org, into the manual directory first.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from avit_jax.errors import UserError


def prepare(name: str, *, data_dir: str, manual_dir: str | None = None) -> str:
    """Prepares a dataset unless it is there already; returns one sentence that says what is there.

    Args:
        name: a name of TFDS, with its configuration where it has several.
        data_dir: where to write, also `gs://bucket/path`.
        manual_dir: where files lie that have to be downloaded by hand.

    Raises:
        UserError: files are missing that have to be downloaded by hand; TensorFlow is not
            installed; unknown name, or the directory holds the dataset in another file format.
    """
    import tensorflow_datasets as tfds

    try:
        existing = tfds.builder(name, data_dir=data_dir).info
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(
            f"there is no dataset {name!r} in TFDS; write a name from "
            "tensorflow.org/datasets/catalog"
        ) from error
    # Some datasets' code imports TensorFlow; then nothing can be known about them without it.
    except ImportError:
        existing = None
    if existing is not None and existing.splits:
        if existing.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(
                f"{data_dir} holds {name!r} prepared as {existing.file_format.value}; write "
                "another --data_dir, or delete that copy first"
            )
        return _describe(existing)
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"preparing {name!r} needs TensorFlow, which training does not; run "
            "pip install 'avit_jax[prepare]', on any machine that can write to the data directory"
        )
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder.download_and_prepare(download_config=config)
    except AssertionError as error:
        # What TFDS raises where it finds no file of a manual download.
        raise UserError(
            f"{name!r} must be downloaded by hand ({' '.join(str(error).split())}); put its files "
            "into one directory and write --manual_dir DIRECTORY"
        ) from error
    return _describe(builder.info)


def _describe(info: object) -> str:
    splits = ", ".join(f"{name} {split.num_examples:,}" for name, split in info.splits.items())
    return f"{info.full_name} is prepared as array_record in {info.data_dir}: {splits} examples"


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line; ends with one sentence where something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m avit_jax.data.prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", help="imagenet2012, imagenette/160px-v2, cifar10, ...")
    parser.add_argument("--data_dir", required=True, help="where to write; also gs://bucket/path")
    parser.add_argument("--manual_dir", help="directory of files downloaded by hand")
    flags = parser.parse_args(argv)
    try:
        print(prepare(flags.name, data_dir=flags.data_dir, manual_dir=flags.manual_dir))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
