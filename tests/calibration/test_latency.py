"""Times are read off between raced programs, and kept."""

import numpy as np
import pytest

from avit_jax.calibration import latency
from avit_jax.calibration.latency import Stopwatch
from avit_jax.calibration.position_search import Probes
from avit_jax.runtime.paired_timing import Timing


class Program:
    """Stands for a compiled program that knows how long it takes."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def put(self, batch: np.ndarray) -> tuple:
        return (batch,)

    def run(self, batch: np.ndarray) -> "Program":
        return self

    @property
    def logits(self) -> float:
        return self.seconds


@pytest.fixture
def stopwatch(monkeypatch):
    """A machine on which a batch takes 2 ms and 4 ms for each GMAC, never twice the same."""
    noise = np.random.default_rng(0)

    def race(contenders, *, turns):
        def wall(program):
            return [sum(program()) * noise.uniform(0.99, 1.01) for _ in range(turns)]

        return {name: Timing(wall(program), []) for name, program in contenders.items()}

    monkeypatch.setattr(latency, "race", race)
    probes = Probes(lambda position: 1 + np.clip(position, -4, 4) / 8, low=-100.0, high=100.0)
    batches = [np.zeros((16, 8, 8, 3)) for _ in range(3)]

    def compiled(position):
        return Program(2e-3 + 4e-3 * probes.costs[position])

    return Stopwatch(probes, compiled, batches), probes


def test_the_dearest_setting_that_keeps_to_the_time_is_found(stopwatch):
    watch, probes = stopwatch
    position, milliseconds = watch.meet(5.5, "5.5ms")
    assert probes.costs[position] == pytest.approx(3.5 / 4, rel=0.05)
    assert milliseconds == pytest.approx(5.5, rel=0.05)


def test_a_time_out_of_reach_is_refused_with_the_range(stopwatch):
    with pytest.raises(ValueError, match=r"batches of 16 images take [34]\.\d+ to [78]\.?\d* ms"):
        stopwatch[0].meet(30.0, "30ms")


def test_a_time_that_no_program_takes_is_refused_rather_than_undercut(stopwatch, monkeypatch):
    watch, probes = stopwatch
    monkeypatch.setattr(probes, "find", lambda cost: probes.high)  # nothing lies between
    for position in set(watch._programs) - {probes.low, probes.high}:
        del watch._programs[position]
    with pytest.raises(ValueError, match="repeat it when nothing else runs"):
        watch.meet(5.0, "5ms")
