"""One process at a time writes a workdir, and a dead one bars nobody."""

import os
import subprocess
import sys

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime.locks import LOCK, only_writer

HOLD = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, b"--mode train, process 7 on elsewhere")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that writes in the folder, without the seconds that JAX takes to start."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / LOCK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_with_the_name_of_the_first(owner, tmp_path):
    with pytest.raises(UserError, match=r"written by another run \(--mode train, process 7 on el"):
        with only_writer(tmp_path, "train"):
            pytest.fail("nobody may come here")
    assert (tmp_path / LOCK).exists(), "the owner's lock stays where it is"


def test_the_lock_of_a_killed_owner_bars_nobody_and_goes(owner, tmp_path):
    owner.kill()
    owner.wait()
    assert (tmp_path / LOCK).exists()
    with only_writer(tmp_path, "train"):
        pass
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_process_exclude_each_other_too(tmp_path):
    with only_writer(tmp_path, "train"):
        said = f"--mode train, process {os.getpid()}"
        with pytest.raises(UserError, match=said), only_writer(tmp_path, "calibrate"):
            pytest.fail("nobody may come here")
    with only_writer(tmp_path, "calibrate"):
        pass


def test_a_lock_taken_away_under_ones_hands_is_not_trusted(tmp_path, monkeypatch):
    from avit_jax.runtime import locks

    seen = []

    def taken_away_once(descriptor, path):
        seen.append(descriptor)
        if len(seen) == 1:
            path.unlink()
        return False

    monkeypatch.setattr(locks, "is_taken", taken_away_once)
    with only_writer(tmp_path, "train"):
        assert len(seen) == 2 and (tmp_path / LOCK).exists()


def test_a_workdir_that_nothing_was_written_to_leaves_no_trace(tmp_path):
    for error in (None, UserError("a mistyped path")):
        try:
            with only_writer(tmp_path / "a" / "run", "train"):
                if error:
                    raise error
        except UserError:
            pass
        assert not (tmp_path / "a" / "run").exists()


def test_a_workdir_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        with only_writer(tmp_path / "file" / "run", "train"):
            pytest.fail("nobody may come here")


def test_where_files_cannot_be_locked_one_goes_on(tmp_path, monkeypatch, caplog):
    import fcntl

    def unsupported(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    caplog.set_level("INFO", "avit_jax")
    with only_writer(tmp_path, "train"):
        assert "cannot be locked: start one process only" in caplog.text
