"""What is written beside the fields of a dataclass, for a page about its settings.

A field may be explained in four ways, in this order: under "Attributes:" in the docstring of its
class, by a string below it, by comment lines above it, by a comment behind it. Python keeps none of
them but the docstring, so they are read from the source.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap

_ATTRIBUTE = re.compile(r"^([\w, ]+): (.+)$")


def summary(section: type) -> str:
    """The docstring of a class without its "Attributes:", in lines as they are written there."""
    return inspect.getdoc(section).partition("\nAttributes:")[0].strip()


def of_fields(section: type) -> dict[str, str]:
    """The text of each field that has one, inherited fields included, in one line of Markdown."""
    found: dict[str, str] = {}
    for origin in reversed(section.__mro__):
        if dataclasses.is_dataclass(origin):
            found |= _beside(origin) | _under_attributes(origin)
    return {name: _one_line(text) for name, text in found.items()}


def _under_attributes(section: type) -> dict[str, str]:
    _, _, block = inspect.cleandoc(section.__doc__ or "").partition("\nAttributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(block).splitlines():
        begins = _ATTRIBUTE.match(line)  # lines that go on are indented further
        if begins:
            names = begins[1].split(", ")
            found |= dict.fromkeys(names, begins[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _beside(section: type) -> dict[str, str]:
    """Strings below fields, comments above them and behind them."""
    source = textwrap.dedent(inspect.getsource(section))
    lines = source.splitlines()
    body = ast.parse(source).body[0].body
    found = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign):
            continue
        above = _comments_above(lines, node.lineno - 1)
        behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        below = inspect.cleandoc(following.value.value) if is_text else ""
        text = below or " ".join(filter(None, (above, behind.removeprefix("#").strip())))
        if text:
            found[node.target.id] = text
    return found


def _comments_above(lines: list[str], index: int) -> str:
    found: list[str] = []
    while index and lines[index - 1].lstrip().startswith("#"):
        index -= 1
        found.insert(0, lines[index].strip().removeprefix("#").strip())
    return " ".join(found)


def _one_line(text: str) -> str:
    """Fit for a cell of a table: without line breaks and bars that would end it."""
    return " ".join(text.split()).replace("|", "\\|")
