import os
import shutil

import pytest

from avit_jax.data.example import BadExample
from avit_jax.data.folder import FolderSource
from avit_jax.data.held_out import held_out
from avit_jax.errors import UserError


def test_files_are_listed_by_class_without_hidden_ones(folder):
    source = FolderSource(split="train", data_dir=str(folder))
    assert source.class_names == ("ant", "zebra")
    assert [source[index].label for index in range(len(source))] == [0, 0, 0, 1, 1, 1]
    assert source.describe(4) == str(folder / "train" / "zebra" / "1.png")
    assert source[4].image == (folder / "train" / "zebra" / "1.png").read_bytes()


def test_images_in_subfolders_of_a_class_are_of_that_class(folder):
    inner = folder / "train" / "ant" / "images" / "2026"
    inner.mkdir(parents=True)
    (folder / "train" / "ant" / "0.png").rename(inner / "0.png")
    (inner / "gone.png").symlink_to(folder / "nowhere.png")
    source = FolderSource(split="train", data_dir=str(folder))
    assert [source[index].label for index in (0, 1, 2, 4)] == [0, 0, 0, 1]
    assert source.describe(2) == str(inner / "0.png")
    with pytest.raises(BadExample, match="cannot be read: No such file"):
        source[3]


def test_a_link_back_to_all_classes_gives_a_class_no_images_of_another(folder):
    (folder / "train" / "ant" / "all").symlink_to(folder / "train")
    assert len(FolderSource(split="train", data_dir=str(folder))) == 6


def test_a_class_folder_that_is_a_link_to_nowhere_is_named(folder):
    (folder / "train" / "bee").symlink_to(folder / "gone")
    with pytest.raises(UserError, match=r"train/bee is a link to '.*gone', which is not there"):
        FolderSource(split="train", data_dir=str(folder))


def test_files_beside_the_class_folders_are_left_out_and_named(folder, caplog):
    for name in ("x.jpg", "labels.csv", "Thumbs.db"):
        (folder / "train" / name).touch()
    assert len(FolderSource(split="train", data_dir=str(folder))) == 6
    (line,) = caplog.messages
    assert line.startswith("left out what lies beside") and line.endswith("train (1: x.jpg)")


def test_notes_in_class_folders_are_left_out_and_told_once(folder, caplog):
    for class_name in ("ant", "zebra"):
        (folder / "train" / class_name / "labels.txt").touch()
    caplog.set_level("INFO", "avit_jax")
    assert len(FolderSource(split="train", data_dir=str(folder))) == 6
    (line,) = caplog.messages
    assert line.endswith("train (2: ant/labels.txt, zebra/labels.txt)")


def test_class_names_that_only_look_alike_are_one_class(folder):
    (folder / "val" / "zebra").rename(folder / "val" / "z\u00e9bra")
    (folder / "train" / "zebra").rename(folder / "train" / "ze\u0301bra")
    sources = [FolderSource(split=split, data_dir=str(folder)) for split in ("train", "validation")]
    assert sources[0].class_names == sources[1].class_names
    assert "z\u00e9bra" in sources[0].class_names
    assert [len(source) for source in sources] == [6, 4]


def test_classes_stand_in_the_order_of_their_names_on_disk(folder):
    """Of a composed name the accent comes behind all plain letters: logits would change places."""
    (folder / "train" / "zebra").rename(folder / "train" / "a\u0301nt")
    (folder / "val" / "zebra").rename(folder / "val" / "\u00e1nt")
    source = FolderSource(split="validation", data_dir=str(folder))
    assert source.class_names == ("ant", "\u00e1nt")
    (folder / "train" / "ant").rename(folder / "train" / "bee")
    (folder / "val" / "ant").rename(folder / "val" / "bee")
    source = FolderSource(split="validation", data_dir=str(folder))
    assert source.class_names == ("\u00e1nt", "bee")


def test_folders_of_splits_may_have_capitals(folder):
    (folder / "train").rename(folder / "Train")
    (folder / "val").rename(folder / "VAL")
    assert len(FolderSource(split="train", data_dir=str(folder))) == 6
    assert len(FolderSource(split="validation", data_dir=str(folder))) == 4


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
    with pytest.raises(UserError, match="absent' is not a folder; write the root"):
        FolderSource(split="train", data_dir=str(folder / "absent"))


def paths(folder, **options):
    return [
        [source.describe(index) for index in range(len(source))]
        for split in ("train", "validation")
        for source in [FolderSource(split=split, data_dir=str(folder), **options)]
    ]


@pytest.mark.parametrize("below", ["train", "."])
def test_without_validation_images_a_share_of_each_class_is_held_out_of_training(
    folder, below, caplog
):
    shutil.rmtree(folder / "val")
    for class_name in ("ant", "zebra"):
        (folder / "train" / class_name).rename(folder / below / class_name)
    if below == ".":
        shutil.rmtree(folder / "train")
    caplog.set_level("INFO", "avit_jax")
    train, held = paths(folder, holdout=0.2)
    assert "2 of its 6 images are held out of training (config.data.holdout 0.2)" in caplog.text
    assert not set(train) & set(held) and len({*train, *held}) == 6
    assert [sum(name in path for path in held) for name in ("ant", "zebra")] == [1, 1]
    assert paths(folder, holdout=0.2) == [train, held]
    with pytest.raises(UserError, match="no folder for split 'validation' but"):
        FolderSource(split="validation", data_dir=str(folder))


def test_where_there_are_validation_images_nothing_is_held_out(folder):
    assert paths(folder, holdout=0.5) == paths(folder)


@pytest.mark.parametrize("name", ["val/x.jpg", "cat/x.jpg", "labels.txt"])
def test_folders_around_those_of_data_are_no_classes(tmp_path, name):
    for file in ("photos/cat/0.jpg", "photos/1.jpg", f"runs/{name}"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(UserError, match="no folder for split 'train' but photos, runs; lay it"):
        FolderSource(split="train", data_dir=str(tmp_path), holdout=0.2)


@pytest.mark.parametrize(
    ("count", "share", "out"), [(1, 0.5, 0), (2, 0.1, 1), (3, 0.9, 2), (10, 0.3, 3)]
)
def test_some_images_are_held_out_and_some_are_not(count, share, out):
    assert len(held_out([str(name) for name in range(count)], share)) == out


def test_which_are_held_out_follows_from_names_and_hardly_changes_with_more_images():
    names = [f"{name}.jpg" for name in range(50)]
    chosen = {names[position] for position in held_out(names, 0.2)}
    assert chosen == {names[::-1][position] for position in held_out(names[::-1], 0.2)}
    more = [*names, "new.jpg"]
    assert len(chosen ^ {more[position] for position in held_out(more, 0.2)}) <= 2


def test_a_file_that_vanished_is_a_bad_example(folder):
    source = FolderSource(split="train", data_dir=str(folder))
    os.remove(source.describe(0))
    with pytest.raises(BadExample, match="cannot be read: No such file"):
        source[0]
