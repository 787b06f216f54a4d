"""Tables for the terminal: names and values in a box, or columns under a header."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from avit_jax.errors import UserError

FRAME = 7  # columns of a table that hold neither names nor values
GAP = "  "  # between columns
NARROWEST = 24  # of the values, in columns


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligns `rows` under `header` as plain text, columns of numbers to the right.

    It is as wide as the terminal at most, 80 columns where there is none: what has no room follows
    below, beside the first column again.
    """
    for row in rows:
        if len(row) != len(header):
            raise UserError(
                f"a table of {len(header)} columns was given {len(row)} cells: {list(row)}."
            )
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    parts = _parts(widths, shutil.get_terminal_size().columns)
    return "\n\n".join(_aligned(header, rows, widths, part) for part in parts)


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
    """Which columns stand beside each other; the first is in every part."""
    parts: list[list[int]] = [[0]]
    used = widths[0]
    for column, width in enumerate(widths[1:], start=1):
        if used + len(GAP) + width > room and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0]
        parts[-1].append(column)
        used += len(GAP) + width
    return parts


def _aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], part: Sequence[int]
) -> str:
    numeric = {i: bool(rows) and all(_looks_numeric(row[i]) for row in rows) for i in part}

    def aligned(row: Sequence[str]) -> str:
        cells = (row[i].rjust(widths[i]) if numeric[i] else row[i].ljust(widths[i]) for i in part)
        return GAP.join(cells).rstrip()

    rule = GAP.join("─" * widths[i] for i in part)
    return "\n".join([aligned(header), rule, *(aligned(row) for row in rows)])


def paragraph(text: str) -> str:
    """Text in lines that are as wide as the terminal at most, as a table is."""
    return "\n".join(_wrapped(text, shutil.get_terminal_size().columns))


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
