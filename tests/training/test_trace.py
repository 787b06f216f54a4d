"""A window of steps is traced where a config asks for it."""

import pytest

from avit_jax.config.defaults import Profile
from avit_jax.errors import UserError
from avit_jax.runtime.training_clock import TrainingClock
from avit_jax.training import trace
from avit_jax.training.trace import Trace


def test_the_window_is_traced_into_the_workdir(tmp_path):
    window, seen = Trace(Profile(start=2, steps=2), tmp_path, 10), []
    for step in range(6):
        window.reach(step, TrainingClock())
        seen.append(len(list(tmp_path.rglob("*.xplane.pb"))))
    assert seen == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("first", [3, 4])
def test_a_run_that_goes_on_within_the_window_traces_the_rest_of_it(tmp_path, monkeypatch, first):
    calls = []
    monkeypatch.setattr(trace.jax.profiler, "start_trace", lambda folder: calls.append("open"))
    monkeypatch.setattr(trace.jax.profiler, "stop_trace", lambda: calls.append("close"))
    window = Trace(Profile(start=2, steps=3), tmp_path, 10)
    window.reach(first, TrainingClock())
    window.close()
    window.close()
    assert calls == ["open", "close"]


def test_nothing_is_traced_unless_asked_for_or_behind_the_window(tmp_path):
    Trace(Profile(), tmp_path, 5).reach(10, TrainingClock())
    Trace(Profile(start=1, steps=2), tmp_path, 5).reach(4, TrainingClock())
    assert not list(tmp_path.iterdir())


def test_a_window_that_the_training_does_not_reach_is_refused(tmp_path):
    with pytest.raises(UserError, match="traces steps 5 to 6, but the training has 5"):
        Trace(Profile(start=4, steps=2), tmp_path, 5)
    with pytest.raises(UserError, match=r"config\.profile\.steps is -1: write 0 or more"):
        Profile(steps=-1)
