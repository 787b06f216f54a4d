"""How many processor cores this process may use: what it is bound to, and what its group may take.

A container is often given a share of the processor's time instead of cores of its own, and sees all
of them; threads beyond its share only wait for each other.
"""

from __future__ import annotations

import os
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def usable_cores(
    groups: Path = CONTROL_GROUPS, membership: Path = Path("/proc/self/cgroup")
) -> int:
    """The number of processor cores that this process may use, at least 1.

    Args:
        groups: where Linux shows its control groups; other systems have none.
        membership: names those of this process.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    granted = _granted(groups, membership)
    return max(1, int(min(bound or 1, bound or 1 if granted is None else granted)))


def _granted(groups: Path, membership: Path) -> float | None:
    """Cores' worth of time that the control groups of this process grant it; `None`: all."""
    shares = [
        share
        for folder in _folders(groups, membership)
        for share in (_second_version(folder), _first_version(folder))
        if share is not None
    ]
    return min(shares, default=None)


def _folders(groups: Path, membership: Path) -> list[Path]:
    """The folders of this process's groups and of all above them, whose limits hold for it too."""
    found = {groups, groups / "cpu"}
    lines = membership.read_text().splitlines() if membership.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)  # "0::/user.slice" or "4:cpu,cpuacct:/docker/x"
        top = groups / "cpu" if "cpu" in controllers.split(",") else groups
        folder = top / path.lstrip("/")
        found |= {place for place in (folder, *folder.parents) if place.is_relative_to(groups)}
    return sorted(found)


def _second_version(folder: Path) -> float | None:
    file = folder / "cpu.max"  # "200000 100000": microseconds of each period, or "max 100000"
    if not file.is_file():
        return None
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _first_version(folder: Path) -> float | None:
    quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
    if not (quota.is_file() and period.is_file()) or int(quota.read_text()) < 0:
        return None
    return int(quota.read_text()) / int(period.read_text())
