"""What may become of a file: each function damages the one at `path`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def truncated(path: Path) -> None:
    """It ends in the middle."""
    content = path.read_bytes()
    path.write_bytes(content[: max(1, len(content) // 2)])


def last_line_gone(path: Path) -> None:
    """It lacks the last whole line."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def first_line_gone(path: Path) -> None:
    """It lacks the first whole line."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def last_line_twice(path: Path) -> None:
    """It has the last line twice."""
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines(keepends=True)[-1])


def flipped(path: Path) -> None:
    """One bit in its middle is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def brace_flipped(path: Path) -> None:
    """The first brace is another character."""
    path.write_bytes(path.read_bytes().replace(b"{", b"(", 1))


def digit_flipped(path: Path) -> None:
    """One digit of the second number of a fraction is another: it stays JSON."""
    content = bytearray(path.read_bytes())
    at = content.index(b".", content.index(b".") + 1) + 1
    content[at] = ord("7") if content[at] != ord("7") else ord("3")
    path.write_bytes(content)


def emptied(path: Path) -> None:
    """It has no byte."""
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """All its bytes are 0, as after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def removed(path: Path) -> None:
    """It is not there."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def a_folder(path: Path) -> None:
    """A folder has its name."""
    if path.exists():
        removed(path)
    path.mkdir()


def a_file(path: Path) -> None:
    """A file has the name of a folder."""
    if path.exists():
        removed(path)
    path.write_text("x")


def a_dead_link(path: Path) -> None:
    """A link to nowhere has its name."""
    removed(path)
    path.symlink_to("nowhere")


def another_json(value: Any) -> Callable[[Path], None]:
    """It holds another JSON value."""

    def damage(path: Path) -> None:
        path.write_text(json.dumps(value))

    damage.__doc__ = f"It holds {json.dumps(value)[:40]}."
    return damage


def changed_json(**values: Any) -> Callable[[Path], None]:
    """Some of its keys ("train__steps") have other values; `...` takes one away."""

    def damage(path: Path) -> None:
        said = json.loads(path.read_text())
        for key, value in values.items():
            *sections, name = key.split("__")
            inner = said
            for section in sections:
                inner = inner[section]
            if value is ...:
                del inner[name]
            else:
                inner[name] = value
        path.write_text(json.dumps(said))

    return damage


def exchanged(path: Path, other: Path) -> None:
    """That of another run has its place."""
    if path.exists():
        removed(path)
    shutil.copytree(other, path) if other.is_dir() else shutil.copyfile(other, path)


def locked_away(path: Path) -> None:
    """Nobody but root may use it."""
    os.chmod(path, 0)
