"""Small image files, folders and prepared datasets that the data tests share."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avit_jax.data.example import BadExample, Example

REAL_DATA = Path(__file__).parents[3] / "shared" / "tfds"


class ListSource:
    """Examples given as a list; an entry of None cannot be read."""

    name = "list"

    def __init__(self, images: Sequence, labels: Sequence[int], num_classes: int = 3) -> None:
        self.images, self.labels = list(images), list(labels)
        self.class_names = tuple(str(number) for number in range(num_classes))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        if self.images[index] is None:
            raise BadExample("cannot be read: gone")
        return Example(self.images[index], self.labels[index])

    def describe(self, index: int) -> str:
        return f"list[{index}]"


def photograph(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    """Returns a smooth RGB picture whose corners differ, so that turns and crops show."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(name="photograph", scope="session")
def photograph_fixture() -> Callable[..., Image.Image]:
    """Makes a smooth RGB picture of a width, a height and a seed."""
    return photograph


@pytest.fixture(scope="session")
def make_source() -> type[ListSource]:
    """Makes a source of a list of images, None for an unreadable one, and a list of labels."""
    return ListSource


@pytest.fixture
def list_source() -> ListSource:
    """Eleven grey images whose brightness is twenty times their index."""
    images = [np.full((8, 8), 20 * index, np.uint8) for index in range(11)]
    return ListSource(images, [index % 3 for index in range(11)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two classes, hidden files, and a validation part under `val`."""
    for split, count in (("train", 3), ("val", 2)):
        for class_name in ("zebra", "ant"):
            directory = tmp_path / split / class_name
            directory.mkdir(parents=True)
            (directory / ".DS_Store").write_bytes(b"hidden")
            for number in range(count):
                photograph(seed=number).save(directory / f"{number}.png")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


@pytest.fixture
def real_data() -> str:
    """The directory with Imagenette prepared by TFDS; skips where there is none."""
    for path in (os.environ.get("TFDS_DATA_DIR"), REAL_DATA):
        if path and (Path(path) / "imagenette" / "160px-v2").is_dir():
            return str(path)
    pytest.skip("no imagenette/160px-v2 in TFDS_DATA_DIR or beside the repository")


FEATURES = "tensorflow_datasets.core.features."
IMAGE = {
    "pythonClassName": FEATURES + "image_feature.Image",
    "image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}},
}
LABEL = {
    "pythonClassName": FEATURES + "class_label_feature.ClassLabel",
    "classLabel": {"numClasses": "2"},
}


@pytest.fixture
def prepare_tiny(tmp_path: Path) -> Callable[..., str]:
    """Writes the files of a dataset `tiny` with three records, as TFDS lays them out."""

    def write(
        *,
        file_format: str = "array_record",
        image_feature: dict = IMAGE,
        labels: Sequence[int] = (0, 1, 0),
    ) -> str:
        from array_record.python import array_record_module
        from tensorflow_datasets.proto import tf_example_pb2

        root = tmp_path / "tfds" / "tiny" / "1.0.0"
        root.mkdir(parents=True)
        (root / "label.labels.txt").write_text("cat\ndog\n")
        description = {
            "pythonClassName": FEATURES + "features_dict.FeaturesDict",
            "featuresDict": {"features": {"image": image_feature, "label": LABEL}},
        }
        (root / "features.json").write_text(json.dumps(description))
        split = {
            "name": "train",
            "shardLengths": [str(len(labels))],
            "numBytes": "1",
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        info = {"name": "tiny", "version": "1.0.0", "fileFormat": file_format, "splits": [split]}
        (root / "dataset_info.json").write_text(json.dumps(info))
        path = root / f"tiny-train.{file_format}-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for number, label in enumerate(labels):
            example = tf_example_pb2.Example()
            png = tmp_path / "record.png"
            photograph(seed=number).save(png)
            example.features.feature["image"].bytes_list.value.append(png.read_bytes())
            example.features.feature["label"].int64_list.value.append(label)
            writer.write(example.SerializeToString())
        writer.close()
        return str(tmp_path / "tfds")

    return write
