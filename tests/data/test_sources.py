import subprocess
import sys

import numpy as np
import pytest

from avit_jax.data import sources
from avit_jax.data.example import read_example
from avit_jax.data.sources import open_source


def test_names_open_their_sources(folder):
    assert open_source("digits", split="train").name == "digits"
    assert open_source("folder", split="train", data_dir=str(folder)).name == "folder"


def test_folder_without_a_directory_says_so():
    with pytest.raises(ValueError, match=r"'folder' needs data\.dir; write the root"):
        open_source("folder", split="train")


def test_directory_comes_from_argument_then_environment(monkeypatch):
    seen = []
    monkeypatch.setattr(
        sources, "TfdsSource", lambda name, *, split, data_dir: seen.append(data_dir)
    )
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    open_source("cifar10", split="train")
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://environment/tfds")
    open_source("cifar10", split="train")
    open_source("cifar10", split="train", data_dir="gs://argument/tfds")
    assert seen == [None, "gs://environment/tfds", "gs://argument/tfds"]


def test_sources_and_decoding_import_neither_grain_nor_tfds():
    code = (
        "import sys, avit_jax.data.sources, avit_jax.data.augment, avit_jax.data.prepare\n"
        "heavy = {'grain', 'tensorflow_datasets', 'tensorflow', 'cv2'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_outside_the_classes_are_bad(list_source):
    list_source.labels[4] = 3
    list_source.labels[5] = -1
    for index, label in ((4, 3), (5, -1)):
        with pytest.raises(sources.BadExample, match=rf"has label {label}, outside 0\.\.2"):
            read_example(list_source, index)
    assert np.all(read_example(list_source, 6).image == 120)
