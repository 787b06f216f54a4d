"""Cores that a process may use: those it is bound to, or fewer where its group has a share."""

import os

import pytest

from avit_jax.runtime.cores import usable_cores

BOUND = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({}, None, BOUND),
        ({"cpu.max": "max 100000"}, "0::/", BOUND),
        ({"cpu.max": "100000 100000"}, "0::/", 1),
        ({"cpu.max": "50000 100000"}, "0::/", 1),  # half a core is one thread
        ({"cpu.max": "100000000 100000"}, "0::/", BOUND),
        ({"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", min(BOUND, 1)),
        ({"cpu/x/cpu.cfs_quota_us": "100000", "cpu/x/cpu.cfs_period_us": "100000"},
         "9:name=systemd:/\n1:cpu,cpuacct:/x", 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", BOUND),
    ],
)  # fmt: skip
def test_a_share_of_the_processor_counts_as_cores(files, membership, cores, tmp_path):
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    assert usable_cores(tmp_path / "groups", tmp_path / "membership") == cores
