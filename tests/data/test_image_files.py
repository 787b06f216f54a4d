"""Which files of a folder are images of the input, in which order, with which class."""

import os

import pytest

from avit_jax.data import image_files, listing
from avit_jax.data.example import BadExample
from avit_jax.errors import UserError

NAMES = ("ant", "bee")


def described(source):
    return [source.describe(index) for index in range(len(source))]


@pytest.fixture
def folder(tmp_path):
    for path in (
        "b.png",
        "a.tiff",
        ".hidden",
        "bee/x.png",
        "bee/deep/z",
        "wasp/x.png",
        ".git/y",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_bytes(path.encode())
    return tmp_path


def test_a_folder_is_walked_to_the_bottom_files_first_and_hidden_ones_never(folder):
    source = image_files.FileSource(folder, class_names=NAMES)
    assert described(source) == ["a.tiff", "b.png", "bee/x.png", "bee/deep/z", "wasp/x.png"]
    labelled = [source.labelled(index) for index in range(len(source))]
    assert labelled == [False, False, True, True, False]
    assert source[3] == (b"bee/deep/z", 1)
    assert source[4] == (b"wasp/x.png", 0)


def test_the_given_folder_itself_and_a_files_own_folder_may_be_a_class(folder):
    for path, files, labelled in (
        (folder / "bee", ["x.png", "deep/z"], True),
        (folder / "bee" / "x.png", ["x.png"], True),
        (folder / "b.png", ["b.png"], False),
    ):
        source = image_files.FileSource(path, class_names=NAMES)
        assert described(source) == files
        assert source.labelled(0) == labelled


def test_the_innermost_class_folder_counts(tmp_path):
    (tmp_path / "ant" / "bee").mkdir(parents=True)
    (tmp_path / "ant" / "bee" / "x.png").touch()
    assert image_files.FileSource(tmp_path, class_names=NAMES)[0].label == 1


def test_names_of_any_bytes_come_back_and_open(tmp_path):
    names = [b"caf\xc3\xa9 \xe2\x98\x95.png", b"latin\xe9.png", b"line\nbreak.png", b" .png"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    source = image_files.FileSource(tmp_path, class_names=NAMES)
    found = {os.fsencode(source.describe(index)): source[index].image for index in range(4)}
    assert found == {name: name for name in names}


def test_folders_that_are_linked_are_walked_and_a_loop_of_links_ends(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.png").touch()
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "bee").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path / "input")
    assert listing.files_below(tmp_path / "input")[0] == ["bee/x.png"]


def test_folders_that_link_to_each_other_are_walked_once_through_links(tmp_path):
    """On all ways through n such folders there are more than n! images."""
    for one in range(5):
        (tmp_path / str(one)).mkdir()
        (tmp_path / str(one) / "x.png").touch()
        for other in {*range(5)} - {one}:
            (tmp_path / str(one) / f"to{other}").symlink_to(tmp_path / str(other))
    found = listing.files_below(tmp_path)[0]
    assert len(found) <= 2 * 5
    assert {f"{one}/x.png" for one in range(5)} <= set(found)


def test_a_link_to_a_folder_around_the_input_is_left_out(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "x.png").touch()
    (tmp_path / "ant" / "up").symlink_to(tmp_path)
    assert listing.files_below(tmp_path / "ant")[0] == ["x.png"]


def test_what_is_no_regular_file_is_a_bad_example_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    source = image_files.FileSource(tmp_path, class_names=NAMES)
    assert described(source) == ["pipe.png", "zero.png"]
    for index in range(2):
        with pytest.raises(BadExample, match="cannot be read: it is no regular file"):
            source[index]


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "desktop.ini", "ehthumbs_vista.db", "Icon\r", "__MACOSX", "@eaDir", "._x"]
)
def test_what_operating_systems_leave_is_hidden(tmp_path, name, caplog):
    (tmp_path / "x.png").touch()
    (tmp_path / name).touch()
    assert listing.files_below(tmp_path) == (["x.png"], [])
    assert not caplog.messages


def test_notes_and_annotations_beside_images_are_left_out_and_named(tmp_path, caplog):
    for name in ("x.png", "labels.txt", "x.XML", "IMG_1.AAE", "old.zip", "z"):
        (tmp_path / name).touch()
    caplog.set_level("INFO", "avit_jax")
    assert described(image_files.FileSource(tmp_path, class_names=NAMES)) == ["x.png", "z"]
    (line,) = caplog.messages
    assert line.endswith("(4: IMG_1.AAE, labels.txt, old.zip and 1 more)")
    named = image_files.FileSource(tmp_path / "labels.txt", class_names=NAMES)
    assert described(named) == ["labels.txt"]


def test_a_folders_name_is_a_class_however_its_accents_are_written(tmp_path):
    (tmp_path / "cafe\u0301").mkdir()
    (tmp_path / "cafe\u0301" / "x.png").touch()
    assert image_files.FileSource(tmp_path, class_names=("ant", "caf\u00e9"))[0].label == 1


def test_a_link_that_leads_nowhere_is_a_bad_example_with_its_reason(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    source = image_files.FileSource(tmp_path, class_names=NAMES)
    with pytest.raises(BadExample, match="cannot be read: No such file"):
        source[0]


def test_nothing_to_read_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no file or folder"):
        image_files.FileSource(tmp_path / "nowhere", class_names=NAMES)
    with pytest.raises(UserError, match="no image in"):
        image_files.FileSource(tmp_path, class_names=NAMES)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def refused(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"locked' cannot be listed \(Permission denied\)"):
        listing.files_below(tmp_path)
