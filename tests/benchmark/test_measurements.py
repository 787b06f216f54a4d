"""Memory is reported where a device tells of it, and only there."""

import jax
import pytest

from avit_jax.benchmark.measurements import device_peak_mb


class Device:
    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


@pytest.mark.parametrize(
    ("stats", "expected"),
    [([None, None], None), ([{"peak_bytes_in_use": 5_000_000}, {"peak_bytes_in_use": 7e6}], 7.0)],
)
def test_the_peak_is_that_of_the_fullest_device(stats, expected, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [Device(s) for s in stats])
    assert device_peak_mb() == expected
