"""The search meets a cost that rises in steps, over any distance, with few measurements."""

import math

import pytest

from avit_jax.calibration.position_search import TOLERANCE, Probes


def cost(position: float) -> float:
    """From 1 to 3, half way at 40, in steps of 0.001."""
    return 2 + round(math.tanh((position - 40) / 20), 3)


@pytest.fixture
def probes():
    return Probes(cost, low=-1e4, high=1e4)


def test_targets_are_met_within_the_tolerance_and_few_probes(probes):
    assert probes.least == 1.0 and probes.most == 3.0
    for target in (1.1, 1.5, 2.0, 2.9):
        position = probes.find(target)
        assert abs(cost(position) - target) <= TOLERANCE * target
        assert probes.costs[position] == cost(position)
    assert len(probes.costs) < 45


def test_what_was_measured_is_not_measured_again(probes):
    position = probes.find(2.0)
    probes._cost = None
    assert probes.find(2.0) == position
    assert probes.find(probes.most) == probes.high
    assert probes.find(probes.least) == probes.low


def test_a_step_wider_than_the_tolerance_gives_the_nearer_side():
    probes = Probes(lambda position: 1.0 if position < 3.7 else 2.0, low=-100.0, high=100.0)
    assert probes.costs[probes.find(1.4)] == 1.0
    assert probes.costs[probes.find(1.6)] == 2.0
