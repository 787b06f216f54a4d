"""The manifest notices every change and is not confused by what lies beside it."""

import pytest
from etils import epath

from avit_jax.checkpoints import manifest


@pytest.fixture
def directory(tmp_path):
    path = epath.Path(tmp_path / "5")
    (path / "data" / "empty").mkdir(parents=True)
    (path / "data" / "a").write_bytes(b"abc")
    (path / "b").write_bytes(b"")
    manifest.write(path, {"step": 5})
    return path


def test_an_unchanged_directory_is_sound(directory):
    assert manifest.find_damage(directory) is None
    content = manifest.read(directory)
    assert content["step"] == 5
    # SHA-256 of "abc" from the standard, FIPS 180-2 appendix B.1.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert content["files"]["data/a"] == {"bytes": 3, "sha256": digest}
    assert sorted(content["files"]) == ["b", "data/a"]


@pytest.mark.parametrize(
    ("name", "content", "damage"),
    [
        ("data/a", b"abd", "data/a has other contents than were written (SHA-256 differs)"),
        ("data/a", b"ab", "data/a has 2 bytes instead of 3"),
        ("b", b"x", "b has 1 bytes instead of 0"),
        ("manifest.json", b"{}", "manifest.json is damaged"),
        ("manifest.json", b"[1", "manifest.json is damaged"),
        ("manifest.json", b"\xff", "manifest.json is damaged"),
    ],
)
def test_changes_are_named(directory, name, content, damage):
    (directory / name).write_bytes(content)
    assert manifest.find_damage(directory) == damage


def test_a_changed_number_in_the_manifest_is_noticed(directory):
    path = directory / "manifest.json"
    path.write_text(path.read_text().replace('"step": 5', '"step": 6'))
    assert manifest.find_damage(directory) == "manifest.json is damaged"


def test_missing_and_unreadable_files_are_named(directory):
    (directory / "data" / "a").unlink()
    assert manifest.find_damage(directory) == "data/a is missing"
    (directory / "data" / "a").mkdir()
    assert manifest.find_damage(directory) == "data/a cannot be read (Is a directory)"


def test_further_files_do_not_matter(directory):
    (directory / "note.txt").write_text("mine")
    assert manifest.find_damage(directory) is None
