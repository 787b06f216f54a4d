"""The parts of a training's wall time make up all of it."""

import pytest

from avit_jax.runtime import goodput
from avit_jax.runtime.training_clock import Effort

EFFORT = Effort(
    seconds=200.0,
    timed_seconds=120.0,
    waiting=20.0,
    compiling=30.0,
    saving=5.0,
    evaluating=25.0,
    lost=10.0,
)


def test_parts_add_up_to_the_whole():
    parts = goodput.parts(EFFORT)
    assert sum(parts.values()) == pytest.approx(200.0)
    assert parts["steps"] == 100.0
    assert parts["other"] == pytest.approx(10.0)


def test_a_person_reads_shares_of_what_is_worth_a_word():
    assert goodput.said(goodput.parts(EFFORT)).startswith("steps 50%, waiting for data 10%,")
    assert "lost" not in goodput.said(goodput.parts(Effort(seconds=10.0, timed_seconds=10.0)))
    assert goodput.said(goodput.parts(Effort())) == "too short to measure"
