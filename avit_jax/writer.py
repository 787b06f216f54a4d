"""What a run leaves behind as text: metrics by the line, JSON files, and tables for the terminal.

Every file appears under its final name complete or not at all, and `metrics.jsonl` of an
interrupted and resumed run reads as the log of one uninterrupted run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from avit_jax.errors import UserError


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether `path` lies in a local file system and not in an object store such as `gs://`."""
    return "://" not in os.fspath(path)


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Makes names created, renamed or removed in a local directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file that is never seen half-written, replacing what was there."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file that is never seen half-written, replacing what was there.

    In an object store the write of one object is atomic by itself.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(path):
        path.write_bytes(data)
        return
    temporary = f"{os.fspath(path)}.tmp{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    sync_directory(path.parent)


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON that is never seen half-written; `plain` says what fits."""
    write_text_atomic(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Turns numbers, arrays, and mappings and sequences of them into what valid JSON can hold.

    Floats keep all their bits. JSON has no NaN or infinity, so these become the strings "nan",
    "inf" and "-inf", which `float` reads back.

    Raises:
        TypeError: for anything else.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.dtype.kind not in "biu":
            array = array.astype(np.float64)
        return plain(array.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"a {type(value).__name__} cannot be written as JSON: write numbers, strings, arrays, "
        "or lists and mappings of them."
    )


class MetricsWriter:
    """Appends metrics to `metrics.jsonl`, and to TensorBoard events where wanted.

    A line is `{"step": 100, "kind": "train", "loss": 1.25, ...}`; scalars go to TensorBoard as
    `train/loss`, lists only to the JSON lines. Only process 0 writes.

    Args:
        workdir: local directory of the run.
        restored_step: the step the run continues from. Lines and events of later steps, left by the
          interrupted run, are cut, and so is a half-written last line. 0 (nothing restored) starts
          an empty log.
        tensorboard: whether to write event files to `workdir/tensorboard`.

    Raises:
        ValueError: if `workdir` is in an object store, where files cannot be appended to.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        restored_step: int = 0,
        tensorboard: bool = True,
    ) -> None:
        if not is_local(workdir):
            raise UserError(
                f"metrics need a local directory to append to, not {os.fspath(workdir)!r}: "
                "write a local --workdir."
            )
        self._file = None
        self._events = None
        if jax.process_index() != 0:
            return
        os.makedirs(workdir, exist_ok=True)
        path = os.path.join(workdir, "metrics.jsonl")
        _cut(path, restored_step=restored_step)
        self._file = open(path, "a", encoding="utf-8")
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(
                os.path.join(workdir, "tensorboard"),
                purge_step=restored_step + 1 if restored_step else 0,
            )

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Appends one line.

        Args:
            step: number of training steps done.
            kind: what was measured, such as "train" or "eval".
            values: scalars or (nested) lists of them; names "step" and "kind" are taken.
        """
        taken = {"step", "kind"} & values.keys()
        if taken:
            raise UserError(
                f"metric {sorted(taken)[0]!r} has the name of a fixed field of the line: rename it."
            )
        if self._file is None:
            return
        values = plain(values)
        line = {"step": int(step), "kind": kind, **values}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                if isinstance(value, int | float) or value in ("nan", "inf", "-inf"):
                    self._events.add_scalar(f"{kind}/{name}", float(value), int(step))

    def flush(self) -> None:
        """Makes all lines survive a power cut; call it before a checkpoint is saved.

        TensorBoard's events are written by a thread of tensorboardX and may follow a little later.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()
            self._events = None


def _cut(path: str, *, restored_step: int) -> None:
    """Removes the lines after `restored_step` and lines that are no JSON from a metrics file."""
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        lines = file.readlines()
    kept = [line for line in lines if restored_step and _is_kept(line, restored_step)]
    if kept != lines:
        write_text_atomic(path, "".join(kept))


def _is_kept(line: str, restored_step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= restored_step
    except (ValueError, KeyError, TypeError):
        return False


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
    """Draws a two-column table of names and values in a box, under a title."""
    left = max((len(name) for name, _ in rows), default=0)
    right = max((len(value) for _, value in rows), default=0)
    right = max(right, len(title) - left - 3)
    bar = "─" * (left + right + 5)
    lines = [f"│ {name.ljust(left)}   {value.ljust(right)} │" for name, value in rows]
    heading = f"│ {title.ljust(left + right + 3)} │"
    return "\n".join([f"┌{bar}┐", heading, f"├{bar}┤", *lines, f"└{bar}┘"])


def _looks_numeric(cell: str) -> bool:
    digits = cell.strip().rstrip("%").replace(",", "").replace("±", "").replace(" ", "")
    try:
        float(digits or "0")
    except ValueError:
        return cell in ("-", "–", "—")
    return True
