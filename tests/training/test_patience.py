"""While no image comes, something is said from time to time, and who asks to stop is heard."""

import pytest

from avit_jax.errors import Preempted
from avit_jax.training.patience import Patience


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_is_there_is_not_waited_for():
    assert Patience(lambda seconds: True, stop=lambda: True)(0.0)


def test_the_longer_it_takes_the_rarer_it_is_said(caplog):
    clock = Clock()
    patience = Patience(lambda seconds: False, stop=lambda: False, clock=clock)
    said = []
    for clock.now in range(0, 600, 10):
        assert not patience(0.1)
        said.append(len(caplog.records))
    assert [said.index(number) * 10 for number in (1, 2, 3)] == [70, 150, 310]
    assert "no image has come for 70 s" in caplog.text


def test_who_asks_to_stop_is_heard_when_it_takes_long():
    clock, asked = Clock(), []

    def stop():
        asked.append(clock.now)
        return clock.now > 2

    patience = Patience(lambda seconds: False, stop=stop, clock=clock)
    assert not patience(0.1) and not asked
    clock.now = 1.5
    assert not patience(0.1)
    clock.now = 2.5
    with pytest.raises(Preempted, match="no image came"):
        patience(0.1)
    assert asked == [1.5, 2.5]
