"""A file of lines that grows: how much belongs to a checkpoint, and whether it is still the same.

An open file outlives its name: a process would go on writing where nobody will ever look.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from avit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LogMark:
    """The beginning of a file of lines.

    Attributes:
        bytes: its length.
        lines: how many.
        sha256: of its contents.
    """

    bytes: int
    lines: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The mark behind some contents."""
        return cls(len(content), content.count(b"\n"), hashlib.sha256(content).hexdigest())

    @classmethod
    def stored(cls, said: Mapping[str, Any] | None) -> Self | None:
        """What a checkpoint holds; `None` of those that are older than marks."""
        return cls(**said) if said else None

    def damage(self, content: bytes) -> str | None:
        """What is wrong with a file that began with the marked contents; `None` if nothing is."""
        if type(self).of(content[: self.bytes]) == self:
            return None
        lines = content.splitlines(keepends=True)
        unreadable = sum(not is_line(line) for line in lines[: self.lines])
        missing = max(0, self.lines - len(lines))
        found = [f"{missing} are missing"] if missing else []
        found += [f"{unreadable} cannot be read"] if unreadable else []
        what = " and ".join(found) or "others are there, or were changed"
        return f"of the {self.lines} lines that belong to the checkpoint {what}"


def is_line(text: bytes) -> bool:
    """Whether it is a whole line of JSON that is an object."""
    try:
        return text.endswith(b"\n") and isinstance(json.loads(text), dict)
    except ValueError:
        return False


class GrowingFile:
    """What a process has written to a file, to be held against what the file is.

    Args:
        path: its name.
        content: of the file before anything is added.
    """

    def __init__(self, path: str | os.PathLike[str], content: bytes) -> None:
        self.path = Path(path)
        self._digest, self._bytes, self._lines = hashlib.sha256(), 0, 0
        self.add(content)

    def add(self, text: bytes) -> None:
        """Note what was appended: whole lines."""
        self._digest.update(text)
        self._bytes, self._lines = self._bytes + len(text), self._lines + text.count(b"\n")

    def mark(self) -> LogMark:
        """Of everything up to now."""
        return LogMark(self._bytes, self._lines, self._digest.hexdigest())


def refuse_changed(path: Path, descriptor: int, length: int) -> None:
    """See that an open file still has its name, and at least the length that was written.

    Raises:
        UserError: somebody has removed, moved, replaced or shortened it.
    """
    opened = os.fstat(descriptor)
    try:
        named = path.stat()
    except OSError:
        gone = [place for place in (path, *path.parents) if not os.path.lexists(place)]
        raise UserError(
            f"{gone[-1] if gone else path} was removed or renamed while this command was writing "
            f"{path.name}: bring it back and start the same command again."
        ) from None
    if not os.path.samestat(opened, named):
        raise UserError(
            f"{path} was replaced by another file while this command was writing it: take that "
            "away and start the same command again."
        )
    if opened.st_size < length:
        raise UserError(
            f"{path} was emptied or shortened to {opened.st_size} bytes while this command was "
            "writing it: start the same command again."
        )
