"""Bytes that the kernels of a compiled program read and write, from its text.

As XLA's own cost analysis counts them, which it does not offer for every absent machine: each
kernel reads its operands and writes its result once, and of an array that it takes a slice of, or
changes one of, that slice. What stays in a cache or registers between two kernels is counted all
the same, so a program may take less time than these bytes do.
"""

from __future__ import annotations

from avit_jax.forecast.collectives import KINDS
from avit_jax.forecast.compiled_text import KERNELS, Instruction, Text, sizes_of

_SLICES = ("dynamic-slice", "slice", "gather")
_MOVES = (*KERNELS, "reduce", "transpose", "broadcast", "concatenate", "convert", "dynamic-slice")


def kernel_bytes(text: Text) -> float:
    """Bytes that all kernels of one run move on one device, collectives left out."""
    types = {name: {one.name: one for one in lines} for name, lines in text.computations.items()}
    total = 0.0
    for step in text.steps():
        one, here = step.instruction, types[step.computation]
        if one.kind not in (*_MOVES, "dynamic-update-slice") or _communicates(text, one):
            continue
        total += step.times * _moved(text, one, here)
    return total


def _communicates(text: Text, one: Instruction) -> bool:
    inside = [inner for name in one.called("calls") for inner in text.computations.get(name, ())]
    return any(inner.kind.removesuffix("-start") in KINDS for inner in inside)


def _moved(text: Text, one: Instruction, here: dict[str, Instruction]) -> float:
    if one.kind in _SLICES:
        return 2 * one.bytes
    if one.kind == "dynamic-update-slice":
        return 2 * here[one.operands[1]].bytes if one.operands[1] in here else 0.0
    operands = [here[name] for name in one.operands if name in here]
    if one.kind != "fusion":
        return one.bytes + sum(operand.bytes for operand in operands)
    body = [inner for name in one.called("calls") for inner in text.computations.get(name, ())]
    named = {inner.name: inner for inner in body}
    users: dict[str, list[Instruction]] = {}
    for inner in body:
        for name in inner.operands:
            users.setdefault(name, []).append(inner)
    read = sum(_read(inner, users, named) for inner in body if inner.kind == "parameter")
    return read + sum(_written(inner, named) for inner in body if inner.is_root)


def _read(
    parameter: Instruction, users: dict[str, list[Instruction]], named: dict[str, Instruction]
) -> float:
    """Bytes of a fusion's operand that it looks at."""
    total = 0.0
    for user in _through(parameter, users):
        if user.kind in _SLICES:
            total += user.bytes
        elif user.kind == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue  # changed in place
        else:
            return max(sizes_of(parameter.type), default=0.0)
    return total


def _through(one: Instruction, users: dict[str, list[Instruction]]) -> list[Instruction]:
    """Who takes a value, behind what only gives it another shape."""
    found = []
    for user in users.get(one.name, ()):
        found += _through(user, users) if user.kind == "bitcast" else [user]
    return found


def _written(root: Instruction, named: dict[str, Instruction]) -> float:
    if root.kind == "tuple":
        return sum(_written(named[name], named) for name in root.operands if name in named)
    if root.kind == "bitcast" and root.operands[0] in named:
        return _written(named[root.operands[0]], named)
    if root.kind == "dynamic-update-slice" and root.operands[1] in named:
        return named[root.operands[1]].bytes
    return root.bytes
