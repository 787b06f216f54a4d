import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from avit_jax.data.augment import Augment
from avit_jax.data.decode import decode
from avit_jax.data.example import BadExample
from avit_jax.data.pipeline import eval_batches, train_batches
from avit_jax.data.tfds_source import TfdsSource
from avit_jax.errors import UserError


def test_prepared_records_come_encoded_with_names(prepare_tiny, photograph):
    source = TfdsSource("tiny", split="train", data_dir=prepare_tiny())
    assert (len(source), source.class_names) == (3, ("cat", "dog"))
    assert source.describe(1) == "tiny train[1]"
    for example_source in (source, pickle.loads(pickle.dumps(source))):
        image, label = example_source[1]
        assert isinstance(image, bytes) and label == 1
        np.testing.assert_array_equal(np.asarray(decode(image)), np.asarray(photograph(seed=1)))


def test_parts_of_splits_work(prepare_tiny):
    source = TfdsSource("tiny", split="train[1:]", data_dir=prepare_tiny())
    assert [source[index].label for index in range(len(source))] == [1, 0]


def test_a_dataset_prepared_as_tfrecord_is_refused_with_the_remedy(prepare_tiny):
    with pytest.raises(
        ValueError,
        match=r"as tfrecord, which has no random access.*python -m avit_jax.data.prepare",
    ):
        TfdsSource("tiny", split="train", data_dir=prepare_tiny(file_format="tfrecord"))


def test_a_dataset_without_image_and_label_is_refused(prepare_tiny):
    text = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
    data_dir = prepare_tiny(image_feature=text)
    with pytest.raises(
        ValueError, match="not a classification dataset: its features are image, la"
    ):
        TfdsSource("tiny", split="train", data_dir=data_dir)


@pytest.mark.parametrize("split", ["test", "train[", "validation[:10%]"])
def test_a_missing_split_lists_those_there_are(prepare_tiny, split):
    with pytest.raises(ValueError, match=r"has no split .*; write one of 'train', or a part"):
        TfdsSource("tiny", split=split, data_dir=prepare_tiny())


def test_an_empty_part_is_refused(prepare_tiny):
    with pytest.raises(ValueError, match=r"split 'train\[:0\]' of dataset 'tiny' is empty"):
        TfdsSource("tiny", split="train[:0]", data_dir=prepare_tiny())


def test_an_unprepared_dataset_names_the_command(tmp_path):
    command = f"run python -m avit_jax.data.prepare cifar10 --data_dir {tmp_path}"
    with pytest.raises(UserError, match=command):
        TfdsSource("cifar10", split="train", data_dir=str(tmp_path))


def test_an_unknown_name_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no dataset 'no_such_thing' in TFDS") as caught:
        TfdsSource("no_such_thing", split="train", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_configuration_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="BuilderConfig 1px not found") as caught:
        TfdsSource("imagenette/1px", split="train", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def older(prepare_tiny, tmp_path):
    """A dataset that TFDS's code knows, prepared at a version that this code no longer has."""
    data_dir = prepare_tiny()
    folder = tmp_path / "tfds" / "cifar10" / "1.0.0"
    (tmp_path / "tfds" / "tiny").rename(folder.parent)
    info = json.loads((folder / "dataset_info.json").read_text()) | {"name": "cifar10"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (file,) = folder.glob("*array_record*")
    file.rename(folder / file.name.replace("tiny", "cifar10"))
    return data_dir


def test_a_version_that_is_not_there_names_the_one_that_is(older):
    for name in ("cifar10:9.9.9", "cifar10", "cifar10/32px"):
        with pytest.raises(
            UserError, match=r"write cifar10:1\.0\.0, which is prepared there"
        ) as said:
            TfdsSource(name, split="train", data_dir=older)
        assert "\n" not in str(said.value) and len(str(said.value)) < 400


def test_a_prepared_version_is_read_after_the_code_of_tfds_has_moved_on(older):
    source = TfdsSource("cifar10:1.0.0", split="train", data_dir=older)
    assert (len(source), source[1].label) == (3, 1)


def test_a_version_that_nobody_has_names_those_that_tfds_has(tmp_path):
    with pytest.raises(UserError, match=r"has no such version \(TFDS knows 3\.0\.2.*leave the v"):
        TfdsSource("cifar10:9.9.9", split="train", data_dir=str(tmp_path))


def test_remote_paths_reach_tfds_unchanged(monkeypatch):
    seen = {}

    def builder(name, *, data_dir):
        seen[name] = data_dir
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(UserError, match=r"gs://bucket/tfds needs .* 'avit_jax\[gcs\]'"):
        TfdsSource("imagenet2012", split="train", data_dir="gs://bucket/tfds")
    assert seen == {"imagenet2012": "gs://bucket/tfds"}


def test_a_damaged_record_is_a_bad_example(prepare_tiny, tmp_path):
    data_dir = prepare_tiny()
    source = TfdsSource("tiny", split="train", data_dir=data_dir)
    (path,) = (tmp_path / "tfds" / "tiny" / "1.0.0").glob("*array_record*")
    damaged = bytearray(path.read_bytes())
    start = damaged.find(source[1].image[100:140])
    assert start > 0
    damaged[start] ^= 0xFF
    path.write_bytes(damaged)
    source = TfdsSource("tiny", split="train", data_dir=data_dir)
    with pytest.raises(BadExample, match=r"^cannot be read: "):
        source[1]
    assert source[2].label == 0


def test_labels_unknown_to_the_dataset_are_substituted(prepare_tiny):
    source = TfdsSource("tiny", split="train", data_dir=prepare_tiny(labels=(0, -1, 0)))
    batch = next(
        train_batches(source, batch_size=3, image_size=8, augment=Augment(kind="none"), seed=0)
    )
    assert sorted(batch["requested"]) == [0, 1, 2] and sorted(batch["index"]) == [0, 2, 2]


def test_real_photographs_are_delivered(real_data):
    source = TfdsSource("imagenette/160px-v2", split="validation[:20]", data_dir=real_data)
    assert len(source.class_names) == 10 and source.class_names[0] == "n01440764"
    augment = Augment()
    evaluated = list(eval_batches(source, batch_size=16, image_size=128, augment=augment))
    assert sum(batch["valid"].sum() for batch in evaluated) == 20
    builder = tfds.builder("imagenette/160px-v2", data_dir=real_data)
    reference = builder.as_data_source(split="validation[:20]")
    labels = np.concatenate([batch["label"] for batch in evaluated])[:20]
    np.testing.assert_array_equal(labels, [record["label"] for record in reference])
    image, _ = source[7]
    np.testing.assert_array_equal(np.asarray(decode(image)), reference[7]["image"])
    trained = next(train_batches(source, batch_size=8, image_size=64, augment=augment, seed=0))
    assert trained["image"].shape == (8, 64, 64, 3) and trained["image"].std() > 20
