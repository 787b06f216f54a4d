"""Errors of the system are one sentence that names the path, wherever they come from."""

import errno
import os
import subprocess

import pytest

from avit_jax.runtime.files import of_path, open_atomic, remove_remains
from avit_jax.runtime.system_errors import sentence


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no room for /x/y (No space left on device): make room"),
        (errno.EFBIG, "no room for /x/y"),
        (errno.EROFS, "/x/y lies where nothing can be written"),
        (errno.EACCES, "/x/y is not for this user to use (Permission denied)"),
        (errno.EISDIR, "/x/y is a folder where a file is meant to be"),
        (errno.ENOTDIR, "/x/y is no folder"),
        (errno.EIO, "/x/y cannot be used (Input/output error)"),
    ],
)
def test_each_names_the_path_and_what_to_do(code, said):
    assert said in sentence(OSError(code, os.strerror(code), "/x/y"))


def test_of_a_path_that_has_gone_the_uppermost_part_is_named(tmp_path):
    error = FileNotFoundError(errno.ENOENT, "gone", str(tmp_path / "run" / "checkpoints" / "4"))
    assert sentence(error).startswith(f"{tmp_path / 'run'} has gone")


def test_a_cause_is_found_and_so_are_the_words_of_a_library():
    cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y")
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = cause
    assert "no room for /x/y" in sentence(wrapped)
    text = 'INTERNAL: Error writing "/a/b": [OS error 28: No space left on device]'
    assert "no room for /a/b" in sentence(ValueError(text))


def test_other_errors_are_none_of_the_systems():
    assert sentence(ValueError("a bug")) is None


def test_a_write_that_fails_gets_the_name_of_its_file(tmp_path):
    with pytest.raises(OSError) as raised, of_path(tmp_path / "x"):
        raise OSError(errno.ENOSPC, "full")
    assert raised.value.filename == str(tmp_path / "x")


def test_what_a_killed_process_left_is_taken_away_and_no_other(tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    dead = process.pid
    living = tmp_path / f"x.tmp{os.getppid()}"
    for name in (f"x.tmp{dead}", living.name, f"y.tmp{dead}"):
        (tmp_path / name).write_text("half")
    with open_atomic(tmp_path / "x") as file:
        file.write(b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["x", living.name, f"y.tmp{dead}"])
    remove_remains(tmp_path / "y", "tmp")
    assert not (tmp_path / f"y.tmp{dead}").exists()
