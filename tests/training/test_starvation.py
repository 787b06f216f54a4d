"""When a training says that its steps wait for images."""

import logging

import pytest

from avit_jax.config.data import Data
from avit_jax.data.augment import Augment
from avit_jax.runtime.training_clock import Effort
from avit_jax.training import starvation
from avit_jax.training.starvation import Starvation, remedies, said


def efforts(*, waiting, lines=4):
    """Of a training with 100 images in 11 s between two log lines, `waiting` s of them in vain."""
    for line in range(1, lines + 1):
        yield Effort(timed_images=100 * line, timed_seconds=11.0 * line, waiting=waiting * line)


def warnings(data, caplog, **settings):
    watch = Starvation(data)
    with caplog.at_level(logging.WARNING):
        for effort in efforts(**settings):
            watch.look(effort)
    return [record.message for record in caplog.records]


def test_steps_that_wait_are_said_once_with_speeds_and_remedies(caplog, monkeypatch):
    monkeypatch.setattr(starvation, "usable_cores", lambda: 8)
    (message,) = warnings(Data(workers=2), caplog, waiting=5.5)
    assert message.startswith("the steps wait for images 50% of the time, so that they are 9 ima")
    for part in (
        "could be 18:",
        "data.workers (2; there are 8 cores)",
        "decoder opencv",
        "fast_shrink",
    ):
        assert part in message


def test_a_tenth_of_the_time_is_no_cause_for_a_word(caplog):
    assert warnings(Data(), caplog, waiting=1.1) == []


def test_filling_the_pipeline_at_the_start_does_not_count(caplog):
    assert warnings(Data(), caplog, waiting=9.0, lines=1) == []


@pytest.mark.parametrize(
    "data, left",
    [
        (Data(workers=8, augment=Augment(kind="affine")), "config.data.threads"),
        (Data(workers=8, threads=4, augment=Augment(kind="affine")), "more cores"),
        (Data(augment=Augment(decoder="opencv", fast_shrink=True)), "config.data.workers"),
    ],
)
def test_only_what_is_not_set_is_a_remedy(data, left, monkeypatch):
    monkeypatch.setattr(starvation, "usable_cores", lambda: 8)
    assert left in remedies(data) and "decoder" not in remedies(data)


def test_steps_that_do_nothing_but_wait_have_no_speed_of_their_own():
    assert "could be many more" in said(10, 10.0, 10.0, Data())
