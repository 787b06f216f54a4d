"""Tables for the terminal: names and values in a box, or columns under a header."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from avit_jax.errors import UserError

FRAME = 7  # columns of a table that hold neither names nor values
NARROWEST = 24  # of the values, in columns


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns `rows` under `header` as plain text, columns of numbers to the right."""
    for row in rows:
        if len(row) != len(header):
            raise UserError(
                f"a table of {len(header)} columns was given {len(row)} cells: {list(row)}."
            )
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    numeric = [
        bool(rows) and all(_looks_numeric(row[i]) for row in rows) for i in range(len(header))
    ]

    def aligned(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        return "  ".join(cells).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([aligned(header), rule, *(aligned(row) for row in rows)])


def table(rows: Sequence[tuple[str, str]], title: str) -> str:
    """Draws a two-column table of names and values in a box, under a title.

    It is as wide as the terminal at most, 80 columns where there is none; values go on in the next
    line then. A path stays whole, so that it can be copied.
    """
    left = max((len(name) for name, _ in rows), default=0)
    room = max(shutil.get_terminal_size().columns - left - FRAME, NARROWEST)
    lines = [
        (name if number == 0 else "", part)
        for name, value in rows
        for number, part in enumerate(_wrapped(value, room))
    ]
    right = max((len(part) for _, part in lines), default=0)
    right = max(right, len(title) - left - 3)
    bar = "─" * (left + right + 5)
    lines = [f"│ {name.ljust(left)}   {part.ljust(right)} │" for name, part in lines]
    heading = f"│ {title.ljust(left + right + 3)} │"
    return "\n".join([f"┌{bar}┐", heading, f"├{bar}┤", *lines, f"└{bar}┘"])


def _wrapped(value: str, room: int) -> list[str]:
    if len(value) <= room:
        return [value]
    return textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False) or [""]


def _looks_numeric(cell: str) -> bool:
    digits = cell.strip().rstrip("%").replace(",", "").replace("±", "").replace(" ", "")
    try:
        float(digits or "0")
    except ValueError:
        return cell in ("-", "–", "—")
    return True
