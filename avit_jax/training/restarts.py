"""What a restart has cost: the time of steps that have to be done again.

`timings.jsonl` says how far the process before came, as far as it logged; a checkpoint says what of
that counts. Time in which no process ran belongs to nobody.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avit_jax.runtime.training_clock import Effort


def read(timings: Path) -> list[dict[str, Any]]:
    """The lines of a diary, without those that a kill has torn."""
    if not timings.is_file():
        return []
    lines = []
    for text in timings.read_bytes().decode("utf-8", "replace").splitlines():
        try:
            line = json.loads(text)
            lines.append({"step": int(line["step"]), "kind": line["kind"]} | _seconds(line))
        except (ValueError, KeyError, TypeError):
            continue
    return lines


def resumed(stored: Effort, lines: Iterable[Mapping[str, Any]], *, step: int) -> Effort:
    """What a run has taken when it goes on.

    Args:
        stored: with the checkpoint.
        lines: of the diary, in order.
        step: of the checkpoint. An evaluation of it counts, though it came later.
    """
    lines = list(lines)
    own = [line for line in lines if (line["step"], line["kind"]) == (step, "eval")]
    kept = evaluated(stored, own[-1]) if own else stored
    return gone_on(kept, max((line["seconds"] for line in lines), default=0.0))


def evaluated(saved: Effort, line: Mapping[str, Any]) -> Effort:
    """What a run has taken up to a checkpoint and the evaluation of it, of which `line` is."""
    if line["seconds"] < saved.seconds:  # of another part of the run, before the checkpoint
        return saved
    return dataclasses.replace(
        saved,
        seconds=line["seconds"],
        evaluating=max(saved.evaluating, line["evaluating_seconds"]),
        # A checkpoint cannot know how long it has taken itself.
        saving=max(saved.saving, line["saving_seconds"]),
    )


def gone_on(kept: Effort, reached: float) -> Effort:
    """`kept`, when the run has come to `reached` seconds since and goes back to it."""
    lost = max(0.0, reached - kept.seconds)
    return dataclasses.replace(kept, seconds=kept.seconds + lost, lost=kept.lost + lost)


def _seconds(line: Mapping[str, Any]) -> dict[str, float]:
    names = ("evaluating_seconds", "saving_seconds")
    return {"seconds": float(line["seconds"])} | {
        name: float(line.get(name, 0.0)) for name in names
    }
