"""Waits until this process and its children rest, so that the next turn has the cores."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

INTERVAL = 0.2  # seconds
BUSY = 0.15  # share of a core


def wait_until_idle() -> None:
    """Returns when all that was begun ahead is done."""
    before = seconds_of_cores()
    while True:
        time.sleep(INTERVAL)
        now = seconds_of_cores()
        if now - before < BUSY * INTERVAL:
            return
        before = now


def seconds_of_cores() -> float:
    """Time of cores that this process and the ones that it has started have had, on Linux."""
    tick = os.sysconf("SC_CLK_TCK")
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / tick
    return total
