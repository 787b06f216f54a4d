"""Variants of ImageNet by the names of TFDS, with the features that TFDS itself gives them."""

import dataclasses
import logging
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from avit_jax.data import imagenet_variants
from avit_jax.data.augment import Augment
from avit_jax.data.bad_examples import BadExamples
from avit_jax.data.example import BadExample
from avit_jax.data.pipeline import eval_batches
from avit_jax.data.sources import open_source
from avit_jax.errors import UserError
from tests.data import prepared

LABELLED = {
    "imagenet_v2/matched-frequency": "test",
    "imagenet_v2/threshold-0.7": "test",
    "imagenet_v2/topimages": "test",
    "imagenet_sketch": "test",
    "imagenet_a": "test",
    "imagenet_r": "test",
    "imagenet2012_corrupted/gaussian_noise_3": "validation",
    "imagenet2012_corrupted/jpeg_compression_5": "validation",
}
EVALUATED = {"batch_size": 4, "image_size": 16, "augment": Augment()}


@pytest.mark.parametrize(("name", "split"), LABELLED.items())
def test_every_variant_is_a_source_under_its_name_with_the_classes_of_imagenet(
    name, split, tmp_path
):
    prepared.write(name, tmp_path, split=split, examples=[{"label": 6}, {"label": 11}])
    source = open_source(name, split=split, data_dir=str(tmp_path))
    source = pickle.loads(pickle.dumps(source))
    assert len(source) == 2 and len(source.class_names) == 1000
    assert (source.class_names[0], source.class_names[999]) == ("n01440764", "n15075141")
    assert [source[0].label, source[1].label] == [6, 11]
    batch = next(eval_batches(source, **EVALUATED))
    assert batch["valid"].tolist() == [True, True, False, False]
    assert "right" not in batch and ("choice" in batch) == (name in ("imagenet_a", "imagenet_r"))


def test_a_variant_with_other_splits_names_them(tmp_path):
    prepared.write("imagenet_a", tmp_path, split="test", examples=[{"label": 6}])
    with pytest.raises(UserError, match="has no split 'validation'; write one of 'test'"):
        open_source("imagenet_a", split="validation", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [("imagenet_a", "n01498041", "n12267677"), ("imagenet_r", "n01443537", "n12267677")],
)
def test_answers_to_a_and_r_are_chosen_from_their_two_hundred_classes(name, first, last, tmp_path):
    prepared.write(name, tmp_path, split="test", examples=[{"label": 6}, {"label": 0}])
    source = open_source(name, split="test", data_dir=str(tmp_path))
    assert len(set(source.choice)) == 200 and list(source.choice) == sorted(source.choice)
    # Folders of a release are WordNet's numbers; here, those of its first and last class.
    assert [source.class_names[source.choice[at]] for at in (0, -1)] == [first, last]
    batch = next(eval_batches(source, **EVALUATED))
    assert np.flatnonzero(batch["choice"][1]).tolist() == list(source.choice)
    with pytest.raises(BadExample, match="has label 0, none of the 200 classes"):
        source[1]
    assert batch["bad"].tolist() == [False, True, False, False]


REAL = [
    {"original_label": 3, "real_label": [3]},
    {"original_label": 5, "real_label": [7, 999]},
    {"original_label": 5, "real_label": []},
]


@pytest.fixture
def real(tmp_path):
    prepared.write("imagenet2012_real", tmp_path, split="validation", examples=REAL)
    return open_source("imagenet2012_real", split="validation", data_dir=str(tmp_path))


def test_real_labels_are_all_right_and_images_without_one_are_left_out_and_no_damage(real):
    assert [real[index].label for index in range(3)] == [3, 5, 5]
    batch = next(eval_batches(real, **EVALUATED))
    found = [np.flatnonzero(row).tolist() for row in batch["right"]]
    assert found == [[3], [7, 999], [], []]
    assert batch["valid"].tolist() == [True, True, False, False]
    assert batch["unlabelled"].tolist() == [False, False, True, False]
    assert not batch["bad"].any()
    assert BadExamples(max_bad_share=0.0).add(batch, real).bad == 0


def test_a_variant_is_not_trained_on(real):
    with pytest.raises(UserError, match="imagenet2012_real is there to evaluate models of ImageNe"):
        imagenet_variants.to_train_on(real)


def test_corrupted_images_that_would_lose_another_margin_are_named(tmp_path, real, caplog):
    name = "imagenet2012_corrupted/fog_1"
    prepared.write(name, tmp_path, split="validation", examples=[{"label": 6}])
    source = open_source(name, split="validation", data_dir=str(tmp_path))
    augment = Augment()
    with caplog.at_level(logging.WARNING):
        for given in (source, real):
            assert imagenet_variants.to_evaluate_on(given, augment) is given
        whole = dataclasses.replace(augment, crop_ratio=1.0)
        imagenet_variants.to_evaluate_on(source, whole)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"images of {name} are cut out already") and "write 1 for" in line


def test_tfds_knows_every_variant_by_the_name_that_is_looked_for():
    known = set(tfds.list_builders(with_community_datasets=False))
    assert known >= imagenet_variants._NAMES
