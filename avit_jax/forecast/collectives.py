"""What devices send to each other in one run of a compiled program."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from avit_jax.forecast.compiled_text import Instruction, Text, sizes_of

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")


class Traffic(NamedTuple):
    """Collectives of one kind in one run.

    Attributes:
        places: in the program; one in a loop is one.
        count: that run, those in loops of known length as often as these run.
        bytes: that a device sends, if they go round a ring: of n devices that share B bytes,
            `B (n-1)/n` to gather or to scatter them, twice that to reduce them on all.
    """

    places: int
    count: int
    bytes: float

    def to_json(self) -> dict[str, Any]:
        """As it stands in `forecast.json`."""
        return {"places": self.places, "count": self.count, "bytes": round(self.bytes)}


def traffic(text: Text, devices: int) -> dict[str, Traffic]:
    """Collectives by kind.

    A TPU's compiler cuts some into parts which run beside other work, each with the whole type but
    one channel, and writes a reduce-scatter as an all-reduce inside of a fusion of that name.

    Args:
        text: of the program.
        devices: it runs on.
    """
    found, channels = {}, set()
    for step in text.steps():
        inside = [(step.instruction, step.computation)]
        if step.instruction.kind == "fusion":
            fused = step.instruction.called("calls")
            inside = [(one, name) for name in fused for one in text.computations.get(name, ())]
        for one, computation in inside:
            kind = one.kind.removesuffix("-start")
            if kind not in KINDS:
                continue
            channel = re.search(r"channel_id=(\d+)", one.line)
            if channel and channel[1] in channels:
                continue
            if channel:
                channels.add(channel[1])
            if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            before = found.get(kind, Traffic(0, 0, 0.0))
            sent = _sent(one, kind, _group_size(one.line, devices))
            found[kind] = Traffic(
                before.places + 1, before.count + step.times, before.bytes + step.times * sent
            )
    return {kind: found[kind] for kind in KINDS if kind in found}


def _sent(one: Instruction, kind: str, group: int) -> float:
    """Bytes that a device sends."""
    sizes = sizes_of(one.type)
    shared = sum(sizes)
    if one.kind == "all-gather-start":  # its type has the parts in front of the wholes
        shared *= group / (group + 1)
    elif one.kind == "collective-permute-start":  # likewise, and two counters behind them
        shared = sizes[0]
    elif one.kind == "reduce-scatter":
        shared *= group
    if kind == "collective-permute":
        return shared
    return shared * (group - 1) / group * (2 if kind == "all-reduce" else 1)


def _group_size(line: str, devices: int) -> int:
    """Devices that take part in one instance of a collective together."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line)
    if named:
        axes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        return math.prod(int(axes[axis]) for axis in re.findall(r"'([^']+)'", named[2]))
    shape = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if shape:
        return int(shape[2])
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
    return len(listed[1].split(",")) if listed and listed[1] else devices
