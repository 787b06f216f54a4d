import os

import pytest

from avit_jax.data.example import BadExample
from avit_jax.data.folder import FolderSource
from avit_jax.errors import UserError


def test_files_are_listed_by_class_without_hidden_ones(folder):
    source = FolderSource(split="train", data_dir=str(folder))
    assert source.class_names == ("ant", "zebra")
    assert [source[index].label for index in range(len(source))] == [0, 0, 0, 1, 1, 1]
    assert source.describe(4) == str(folder / "train" / "zebra" / "1.png")
    assert source[4].image == (folder / "train" / "zebra" / "1.png").read_bytes()


@pytest.mark.parametrize("name", ["val", "validation", "valid", "test"])
def test_validation_is_found_under_its_usual_names(folder, name):
    (folder / "val").rename(folder / name)
    assert len(FolderSource(split="validation", data_dir=str(folder))) == 4


def test_a_class_missing_from_validation_keeps_the_others_numbers(folder):
    for file in (folder / "val" / "ant").iterdir():
        file.unlink()
    (folder / "val" / "ant").rmdir()
    source = FolderSource(split="validation", data_dir=str(folder))
    assert [source[index].label for index in range(len(source))] == [1, 1]


def test_a_class_only_in_validation_is_refused(folder):
    (folder / "val" / "bee").mkdir()
    with pytest.raises(ValueError, match=r"training folder lacks \(bee\); give each class"):
        FolderSource(split="validation", data_dir=str(folder))


def test_an_empty_class_folder_is_named(folder):
    (folder / "train" / "bee").mkdir()
    (folder / "train" / "bee" / ".hidden").touch()
    with pytest.raises(ValueError, match=r"class folder .*train/bee has no files; put images"):
        FolderSource(split="train", data_dir=str(folder))


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train has no class folders with images; lay it out"):
        FolderSource(split="train", data_dir=str(tmp_path))


def test_missing_folders_are_named_with_what_is_there(folder):
    with pytest.raises(UserError, match="no folder for split 'holdout' but train, val"):
        FolderSource(split="holdout", data_dir=str(folder))
    with pytest.raises(UserError, match="absent' is not a local folder; write the root"):
        FolderSource(split="train", data_dir=str(folder / "absent"))


def test_a_file_that_vanished_is_a_bad_example(folder):
    source = FolderSource(split="train", data_dir=str(folder))
    os.remove(source.describe(0))
    with pytest.raises(BadExample, match="cannot be read: No such file"):
        source[0]
