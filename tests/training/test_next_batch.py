"""Where no batch comes, a run that is asked to stop saves and stops."""

from types import SimpleNamespace

import jax
import pytest

from avit_jax.errors import Preempted, UserError
from avit_jax.training import patience
from avit_jax.training.loop import Run


class Never:
    def arrives(self, seconds):
        return False


class Broken:
    def arrives(self, seconds):
        return True

    def take(self):
        raise UserError("too many are bad")


def run_of(saved, *, averages=True):
    def wait_for(arrives):
        while not arrives(0.0):
            pass

    clock = SimpleNamespace(wait_for=wait_for)
    save = lambda: saved.append(True)  # noqa: E731
    return SimpleNamespace(clock=clock, step=3, averages=averages or None, save=save)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(patience, "HEAR_SECONDS", -1.0)


def test_it_saves_what_it_has(monkeypatch):
    saved = []
    with pytest.raises(Preempted, match="no image came"):
        Run.next_of(run_of(saved), Never(), lambda step: step == 3)
    with pytest.raises(UserError, match="too many are bad"):
        Run.next_of(run_of(saved), Broken(), lambda step: False)
    assert len(saved) == 2


def test_before_the_first_step_there_is_nothing_to_save():
    saved = []
    with pytest.raises(Preempted):
        Run.next_of(run_of(saved, averages=False), Never(), lambda step: True)
    assert saved == []


def test_one_of_several_processes_does_not_stop_alone(monkeypatch):
    saved, asked = [], []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="too many are bad"):
        Run.next_of(run_of(saved), Broken(), asked.append)
    arrivals = iter([False, False, True])
    batches = SimpleNamespace(arrives=lambda seconds: next(arrivals), take=lambda: "batch")
    assert Run.next_of(run_of(saved), batches, asked.append) == "batch"
    assert saved == [] and asked == []
