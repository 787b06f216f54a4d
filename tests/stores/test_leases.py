import json
import os
import subprocess
import sys

import pytest

from avit_jax.errors import UserError
from avit_jax.runtime import leases, locks
from avit_jax.runtime.stores import children


def _other_owner(place, **said):
    """The object of an owner on another machine."""
    other = place / ".lock" / "other"
    other.write_text(
        json.dumps({"owner": "--mode train on tpu-3", "pid": 1, "where": "there"} | said)
    )
    return other


def test_a_second_run_is_refused_once_the_first_shows_to_be_alive(folder, monkeypatch):
    other = _other_owner(folder)
    monkeypatch.setattr(leases.time, "sleep", lambda seconds: _other_owner(folder))  # it beats
    with (
        pytest.raises(UserError, match=r"is being written by another run \(--mode train on tpu-3"),
        locks.only_writer(folder, "train"),
    ):
        pass
    assert children(folder / ".lock") == [other]


def test_a_run_that_died_elsewhere_bars_nobody_after_its_time(folder):
    _other_owner(folder)
    with leases.held(folder, folder / ".lock", "late", expiry=1.0):
        (mine,) = children(folder / ".lock")
        assert json.loads(mine.read_text())["owner"] == "late"
    assert not children(folder / ".lock")


def test_a_run_that_died_on_this_machine_bars_nobody_at_all(folder, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    _other_owner(folder, pid=ended.pid, where=leases._pid_namespace())
    monkeypatch.setattr(leases, "_await_end", lambda *arguments: pytest.fail("it waits"))
    with locks.only_writer(folder, "train"):
        assert len(children(folder / ".lock")) == 1


def test_a_living_process_of_this_machine_is_not_taken_for_dead(folder):
    other = _other_owner(folder, pid=os.getpid(), where=leases._pid_namespace())
    assert not leases._has_ended(other)


def test_an_owner_that_was_taken_for_dead_writes_no_more(folder):
    with leases.held(folder, folder / ".lock", "stopped", expiry=0.2):
        (mine,) = children(folder / ".lock")
        leases.refuse_lost(folder)
        mine.unlink()  # as whoever takes over does
        for _ in range(600):  # its next beat, whenever that is
            if leases._lost:
                break
            leases.time.sleep(0.1)
        with pytest.raises(UserError, match="another run took this one for dead"):
            leases.refuse_lost(folder)
    leases.refuse_lost(folder)
