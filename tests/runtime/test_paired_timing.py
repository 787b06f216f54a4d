"""Races are paired: a drift that hits both sides of a turn leaves the ratio alone."""

import pytest

from avit_jax.runtime.paired_timing import Timing, race, speedup


def test_every_contender_runs_in_every_turn_in_changing_order():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = race(contenders, turns=8)
    turns = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1
    assert all(len(timing.wall) == len(timing.cpu) == 8 for timing in times.values())


def test_a_machine_that_slows_down_does_not_change_the_ratio():
    drift = [1.0, 1.0, 3.0, 3.0, 2.0]
    baseline = Timing([2 * d for d in drift], drift)
    contender = Timing(drift, drift)
    ratio = speedup(baseline, contender)
    assert tuple(ratio) == pytest.approx((2.0, 2.0, 2.0))
