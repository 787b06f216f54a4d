"""Runs that go on with another number of devices: the same images in the same order."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path

import numpy as np

from tests.survival import process
from tests.survival.fault import FAILED, Fault, Outcome
from tests.survival.pair import within_rounding
from tests.survival.scene import STEPS, Scene


def record_labels(file: Path, kill_at: int | None) -> None:
    """In the process of a command: writes the labels of each step's batch; is killed at a step."""
    from avit_jax.training.loop import Run

    advance = Run.advance

    def recorded(self: Run, batch: dict) -> None:
        with file.open("a") as lines:
            labels = np.asarray(batch["label"]).tolist()
            lines.write(json.dumps([self.step, labels]) + "\n")
        if self.step == kill_at:
            self.checkpoints.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        advance(self, batch)

    Run.advance = recorded


def other_device_count(scene: Scene, *, devices: tuple[int, ...]) -> Outcome:
    """A run that goes on with other numbers of devices sees the same images in the same order."""
    workdir, files = scene.folder / "run", [scene.folder / "ours", scene.folder / "theirs"]
    for part, count in enumerate(devices):
        kill_at = (part + 1) * STEPS // len(devices) if part + 1 < len(devices) else None
        prepare = functools.partial(record_labels, files[0], kill_at)
        ended = process.run(scene.command(workdir), prepare=prepare, devices=count)
        if ended.status != (0 if kill_at is None else -signal.SIGKILL):
            return Outcome(FAILED, ended.err[-900:])
    scene.run(scene.folder / "other", prepare=functools.partial(record_labels, files[1], None))
    # What was done again after a kill has to be the same as well.
    seen = [{tuple(map(str, json.loads(line))) for line in file.open()} for file in files]
    if seen[0] != seen[1] or len(seen[0]) != STEPS:
        return Outcome(FAILED, f"{len(seen[0] ^ seen[1])} batches differ")
    return within_rounding(scene, workdir)


FAULTS: tuple[Fault, ...] = tuple(
    Fault(
        "devices",
        " then ".join(map(str, devices)),
        functools.partial(other_device_count, devices=devices),
    )
    for devices in ((8, 4, 2), (1, 2), (2, 8, 1))
)
