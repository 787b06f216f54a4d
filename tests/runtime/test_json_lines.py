"""Lines survive whatever kills their writer, each once, and only the same work goes on."""

import itertools
import json
import logging
import os
import resource

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime.json_lines import SYNC_SECONDS, JsonLines, identity_path

WORK = {"model": "a", "images": 5}
LINES = [{"image": f"{number}\udcff é\n", "value": number / 3} for number in range(5)]


def write(path, lines=LINES, **arguments):
    """Goes on to the end, as a restarted run does."""
    with JsonLines(path, **{"identity": WORK} | arguments) as file:
        begun = file.count
        file.append(lines[begun:])
    return begun


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "lines.jsonl"


def test_lines_of_several_calls_are_those_of_one_and_any_name_comes_back(path):
    for count in (2, 3, 5):
        write(path, LINES[:count])
    text = path.read_bytes()
    assert text.isascii()
    assert [json.loads(line) for line in text.decode().splitlines()] == LINES
    assert write(path) == 5, "all was there already"
    assert path.read_bytes() == text


def test_cut_at_any_byte_the_file_ends_as_if_never_cut(path):
    write(path)
    whole = path.read_bytes()
    ends = [0, *itertools.accumulate(len(line) for line in whole.splitlines(keepends=True))]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        assert write(path) == sum(end <= length for end in ends) - 1
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"\0" * 100, b'{"image": 3\n{"image": 4}\n', b"7\n", b"\xff\n"])
def test_what_a_power_cut_leaves_is_cut_off_and_said(path, damage, caplog):
    write(path)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[:first] + damage)
    with caplog.at_level(logging.WARNING):
        assert write(path) == 1
    assert f"torn end of {len(damage)} bytes behind line 1" in caplog.text
    assert path.read_bytes() == whole


def test_other_work_is_refused_and_its_difference_named(path):
    write(path)
    whole = path.read_bytes()
    with pytest.raises(UserError, match=r'other work \(model was "a", is "b"\)'):
        write(path, identity=WORK | {"model": "b"})
    with pytest.raises(
        UserError, match=r"other work \(images was 5, is null; steps was null, is 7"
    ):
        write(path, identity={"model": "a", "steps": 7})
    assert path.read_bytes() == whole


def test_of_many_differences_some_are_named(path):
    write(path)
    identity = dict.fromkeys("abcdef", 1)
    with pytest.raises(
        UserError, match=r"a was null, is 1; b was .*; c was null, is 1; and 5 more"
    ):
        write(path, identity=identity)


@pytest.mark.parametrize("content", ["3", "[1]", "{}", "{"])
def test_an_identity_that_says_nothing_is_damaged(path, content):
    write(path)
    identity_path(path).write_text(content)
    with pytest.raises(UserError, match=r"cannot be read .*, so nobody knows"):
        write(path)


def test_a_file_without_lines_may_be_taken_over(path):
    write(path, [])
    write(path, identity=WORK | {"model": "b"})
    assert json.loads(identity_path(path).read_text())["model"] == "b"


def test_a_diary_takes_lines_of_any_work_and_has_no_file_beside_it(path):
    for count in (1, 2):
        assert write(path, LINES[:count], identity=None) == count - 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("beside", [None, "{", ""])
def test_a_file_of_unknown_origin_is_left_alone(path, beside):
    path.parent.mkdir()
    path.write_text("precious")
    if beside is not None:
        identity_path(path).write_text(beside)
    with pytest.raises(UserError, match="nobody knows"):
        write(path)
    assert path.read_text() == "precious"


def test_lines_that_are_there_are_checked_one_by_one(path):
    write(path, LINES[:3])
    seen = []
    write(path, check=lambda number, line: seen.append((number, line)))
    assert seen == list(enumerate(LINES[:3]))

    def refuse(number, line):
        raise UserError("not this one")

    whole = path.read_bytes()
    with pytest.raises(UserError, match="not this one"):
        write(path, check=refuse)
    assert path.read_bytes() == whole


def test_a_second_writer_is_kept_out_until_the_first_has_gone(path):
    with JsonLines(path, identity=WORK):
        with pytest.raises(UserError, match="another process is writing"):
            JsonLines(path, identity=WORK)
    assert write(path) == 0


def test_a_full_disk_is_one_sentence_and_the_rest_follows_later(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(.*\): make room"):
            write(path, LINES * 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == 300
    assert write(path, LINES * 10) > 0
    assert [json.loads(line) for line in path.read_text().splitlines()] == LINES * 10


def test_places_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        JsonLines(tmp_path, identity=WORK)


def test_lines_are_forced_to_the_disk_from_time_to_time_and_at_the_end(path, monkeypatch):
    now, synced = [0.0], []
    with JsonLines(path, identity=WORK, clock=lambda: now[0]) as file:
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(file.count))
        for number, line in enumerate(LINES):
            now[0] = number * 0.4 * SYNC_SECONDS
            file.append([line])
    assert synced == [4, 5]
