"""What a compiled program does, read from its text: nothing has to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

KERNELS = ("fusion", "custom-call", "copy", "scatter", "sort", "convolution", "dot", "gather")
_BYTES = {"pred": 1, "bf16": 2, "s4": 0.5, "u4": 0.5} | {
    f"{kind}{bits}": bits // 8 for kind in "sufc" for bits in (8, 16, 32, 64, 128)
}
_SHAPE = re.compile(r"\b([a-z]+\d*)(?:e\d+m\d+\w*)?\[([\d,]*)\]")


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        name: of its result.
        type: of the result, such as "f32[8,16]{1,0}"; a tuple in parentheses.
        kind: of the operation, such as "fusion" or "all-gather-start".
        operands: names of results that it takes.
        line: the whole of it.
        is_root: whether it is what its computation returns.
    """

    name: str
    type: str
    kind: str
    operands: tuple[str, ...]
    line: str
    is_root: bool

    @property
    def bytes(self) -> float:
        """Of the result."""
        return bytes_of(self.type)

    def called(self, *attributes: str) -> tuple[str, ...]:
        """Computations that it names as such an attribute, "calls" or "body", say."""
        found = []
        for attribute in attributes:
            for one, several in re.findall(
                rf"\b{attribute}=(?:%?([\w.\-]+)|\{{([^}}]*)\}})", self.line
            ):
                found += [part.strip().lstrip("%") for part in (one or several).split(",")]
        return tuple(filter(None, found))


class Step(NamedTuple):
    """An instruction as a run of the program gets to it.

    Attributes:
        instruction: that runs.
        computation: that it stands in.
        times: how often it runs; loops whose trip count depends on data count once.
        waits: whether it is a loop or a branch that depends on data.
    """

    instruction: Instruction
    computation: str
    times: int
    waits: bool


class Text:
    """A compiled program (`jax.stages.Compiled.as_text`) by computations."""

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        found: list[Instruction] | None = None
        for line in text.splitlines():
            head = re.match(r"(ENTRY )?%?([\w.\-]+) [({].*\{$", line)
            if head:
                found = self.computations.setdefault(head[2], [])
                self.entry = head[2] if head[1] else self.entry
            elif found is not None and (instruction := _instruction(line)):
                found.append(instruction)

    def steps(self) -> Iterator[Step]:
        """All instructions that a run gets to, in any order; not those inside of fusions."""
        stack = [(self.entry, 1)]
        while stack:
            name, times = stack.pop()
            for one in self.computations.get(name, ()):
                waits = False
                if one.kind == "while":
                    trips = self._trip_count(one)
                    waits = trips is None
                    stack += [(body, times * (trips or 1)) for body in one.called("body")]
                elif one.kind == "conditional":
                    waits = True
                    branches = ("true_computation", "false_computation", "branch_computations")
                    stack += [(branch, times) for branch in one.called(*branches)]
                elif one.kind in ("call", "async-start"):
                    stack += [(body, times) for body in one.called("to_apply", "calls")]
                yield Step(one, name, times, waits)

    def _trip_count(self, loop: Instruction) -> int | None:
        """How often a loop runs; `None` where that depends on data."""
        said = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop.line)
        if said:
            return int(said[1])
        # A TPU's compiler does not say it: a counter that is held against one constant, no more.
        lines = [
            one for name in loop.called("condition") for one in self.computations.get(name, ())
        ]
        for inner in [name for one in lines for name in one.called("calls", "to_apply")]:
            lines = lines + self.computations.get(inner, [])
        text = "\n".join(one.line for one in lines)
        constants = re.findall(r"s32\[\]\S* constant\((\d+)\)", text)
        counts = len(constants) == 1 and "direction=LT" in text
        joined = re.search(r"pred\[\]\S* (and|or|xor)\(", text)
        return int(constants[0]) if counts and not joined else None


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


def work_of(text: str | Text) -> Work:
    """What a compiled program does, from its text."""
    waits = kernels = cycles = 0
    for step in (text if isinstance(text, Text) else Text(text)).steps():
        estimate = re.search(r'"estimated_cycles":"(\d+)"', step.instruction.line)
        cycles += step.times * int(estimate[1]) if estimate else 0
        waits += step.waits
        kernels += step.times if step.instruction.kind in KERNELS else 0
    return Work(waits, kernels, cycles)


def sizes_of(type_: str) -> list[float]:
    """Bytes of the arrays of a type, one after the other."""
    found = []
    for dtype, dimensions in _SHAPE.findall(type_):
        size = _BYTES.get(dtype, 0.0)
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        found.append(size)
    return found


def bytes_of(type_: str) -> float:
    """Bytes of a type, all arrays of a tuple together."""
    return sum(sizes_of(type_))


def _instruction(line: str) -> Instruction | None:
    """The instruction of a line, if it is one."""
    name, equals, rest = line.strip().partition(" = ")
    if not equals:
        return None
    type_, rest = _cut(rest, " ")
    kind, _, rest = rest.partition("(")
    operands, _ = _cut(rest, ")")
    return Instruction(
        name=name.removeprefix("ROOT ").lstrip("%"),
        type=type_,
        kind=kind.strip(),
        operands=tuple(re.findall(r"%([\w.\-]+)", operands)),
        line=line,
        is_root=name.startswith("ROOT "),
    )


def _cut(text: str, end: str) -> tuple[str, str]:
    """What stands in front of and behind the first `end` outside of parentheses."""
    depth = 0
    for index, character in enumerate(text):
        if character == end and depth == 0:
            return text[:index], text[index + 1 :]
        depth += (character == "(") - (character == ")")
    return text, ""
