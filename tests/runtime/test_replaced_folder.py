"""A report appears as a whole or not at all, and never in the place of something else."""

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime.replaced_folder import replaced_folder

PAGE = "a report"


def is_report(folder):
    """What a caller may know its own folders by."""
    return (folder / "index.html").is_file() and (folder / "index.html").read_text() == PAGE


def test_the_folder_takes_its_place_at_the_end(tmp_path):
    target = tmp_path / "deep" / "report"
    with replaced_folder(target) as folder:
        (folder / "index.html").write_text(PAGE)
        assert not target.exists()
    assert (target / "index.html").read_text() == PAGE
    assert list(target.parent.iterdir()) == [target]


def test_an_older_report_is_replaced_and_stays_until_then(tmp_path):
    target = tmp_path / "report"
    for content in ("first", "second"):
        with replaced_folder(target, may_replace=is_report) as folder:
            (folder / "index.html").write_text(PAGE)
            (folder / content).write_text(content)
            assert (target / "first").exists() == (content == "second")
    assert sorted(path.name for path in target.iterdir()) == ["index.html", "second"]
    assert list(tmp_path.iterdir()) == [target]


def test_what_fails_on_the_way_leaves_the_older_report_alone(tmp_path):
    target = tmp_path / "report"
    target.mkdir()
    (target / "index.html").write_text(PAGE)
    with pytest.raises(RuntimeError), replaced_folder(target, may_replace=is_report) as folder:
        (folder / "index.html").write_text("half")
        raise RuntimeError("power cut")
    assert (target / "index.html").read_text() == PAGE
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("content", ["photograph.jpg", "index.html"])
def test_folders_of_other_things_are_not_touched(content, tmp_path):
    (tmp_path / content).write_text("<html>my own page</html>")
    refused = pytest.raises(UserError, match="no earlier report")
    with refused, replaced_folder(tmp_path, may_replace=is_report):
        pytest.fail("nothing may be written")
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_files_are_no_folders(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError), replaced_folder(file):
        pytest.fail("nothing may be written")
