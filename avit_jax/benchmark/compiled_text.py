"""What a compiled program does, read from its text: nothing has to run."""

from __future__ import annotations

import re
from typing import NamedTuple

KERNELS = ("fusion", "custom-call", "copy", "scatter", "sort", "convolution", "dot", "gather")


class Work(NamedTuple):
    """What one run of a compiled program does.

    Attributes:
        waits: loops whose trip count depends on data, and conditionals.
        kernels: that are started; loops of known length counted as often as they run.
        cycles: estimate of a TPU's compiler, which leaves out gathers and kernels of our own; 0
            from compilers that give none.
    """

    waits: int
    kernels: int
    cycles: int


def work_of(text: str) -> Work:
    """What a compiled program does, from its text (`jax.stages.Compiled.as_text`)."""
    blocks, name, entry = {}, None, None
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) [({].*\{$", line)
        if head:
            name = head[2]
            blocks[name], entry = [], name if head[1] else entry
        elif name is not None:
            blocks[name].append(line)
    waits = kernels = cycles = 0
    stack = [(entry, 1)]
    while stack:
        name, times = stack.pop()
        for line in blocks.get(name, ()):
            operation = re.search(r"(?<=[\]}) ])([a-z][\w\-]*)\(", line.partition(" = ")[2])
            kind = operation[1] if operation else ""
            estimate = re.search(r'"estimated_cycles":"(\d+)"', line)
            cycles += times * int(estimate[1]) if estimate else 0
            if kind == "while":
                trips = _trip_count(line, blocks)
                waits += trips is None
                body = re.search(r"body=%?([\w.\-]+)", line)[1]
                stack.append((body, times * (trips or 1)))
            elif kind == "conditional":
                waits += 1
            elif kind == "call":
                stack.append((re.search(r"to_apply=%?([\w.\-]+)", line)[1], times))
            elif kind in KERNELS:
                kernels += times
    return Work(waits, kernels, cycles)


def _trip_count(line: str, blocks: dict[str, list[str]]) -> int | None:
    """How often a loop runs; `None` where that depends on data."""
    said = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', line)
    if said:
        return int(said[1])
    # A TPU's compiler does not say it: a counter that is held against one constant, and no more.
    condition = blocks.get(re.search(r"condition=%?([\w.\-]+)", line)[1], [])
    text = "\n".join(condition)
    for called in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text):
        text += "\n" + "\n".join(blocks.get(called, []))
    constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", text)
    counts = len(constants) == 1 and "direction=LT" in text
    return (
        int(constants[0]) if counts and not re.search(r"pred\[\]\S* (and|or|xor)\(", text) else None
    )
