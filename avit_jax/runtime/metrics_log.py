"""The log of a training: one line of `metrics.jsonl` per measurement, and TensorBoard events.

After an interruption, lines from beyond the restored checkpoint are removed, so the log of a
resumed run reads like that of an uninterrupted one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from avit_jax.errors import UserError
from avit_jax.runtime import leases
from avit_jax.runtime.appended import Appended, open_appended
from avit_jax.runtime.files import is_local, of_path, plain, write_bytes_atomic
from avit_jax.runtime.growing_file import GrowingFile, LogMark, is_line
from avit_jax.runtime.stored_events import StoredEvents
from avit_jax.runtime.stores import as_path

logger = logging.getLogger(__name__)


class MetricsWriter:
    """Appends metrics to `metrics.jsonl`, and to TensorBoard events where wanted.

    A line is `{"step": 100, "kind": "train", "loss": 1.25, ...}`; scalars go to TensorBoard as
    `train/loss`, lists only to the JSON lines. Only process 0 writes.

    Args:
        workdir: directory of the run. In an object store lines are there from `flush` on.
        restored_step: the step the run continues from. Lines and events of later steps, left by the
          interrupted run, are removed, and so is a half-written last line. 0 (nothing restored)
          starts an empty log.
        tensorboard: whether to write event files to `workdir/tensorboard`.
        mark: of the log as the restored checkpoint knows it; a file that does not begin so is kept
          beside, and a warning says what it lacks.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        restored_step: int = 0,
        tensorboard: bool = True,
        mark: LogMark | None = None,
    ) -> None:
        self._workdir = as_path(workdir)
        self._file: Appended | None = None
        self._events = None
        if jax.process_index() != 0:
            return
        path = self._workdir / "metrics.jsonl"
        if not is_local(path):
            open_appended(path).close()  # of what a killed process has left, one object
        kept = _cut(path, restored_step=restored_step, mark=mark)
        self._file = open_appended(path)
        self._content = GrowingFile(path, kept)
        if tensorboard:
            from tensorboardX import SummaryWriter

            purge_step = restored_step + 1 if restored_step else 0
            events = self._workdir / "tensorboard"
            if is_local(events):
                self._events = SummaryWriter(os.fspath(events), purge_step=purge_step)
            else:
                self._events = StoredEvents(events, purge_step=purge_step)

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
        text = (json.dumps(line, allow_nan=False) + "\n").encode()
        with of_path(self._content.path):
            self._file.write(text)
        self._content.add(text)
        if self._events is not None:
            for name, value in values.items():
                if isinstance(value, int | float) or value in ("nan", "inf", "-inf"):
                    self._events.add_scalar(f"{kind}/{name}", float(value), int(step))

    def flush(self) -> None:
        """Makes all lines survive a power cut; call it before a checkpoint is saved.

        TensorBoard's events are written by a thread of tensorboardX and may follow a little later.

        Raises:
            UserError: the workdir is in a store, and may be another run's by now.
        """
        leases.refuse_lost(self._workdir)
        if self._file is not None:
            self._file.refuse_changed(self._content.mark().bytes)
            self._file.sync()
        if self._events is not None:
            self._events.flush()

    def mark(self) -> LogMark | None:
        """What has been written up to now; `None` in processes that write nothing."""
        return None if self._file is None else self._content.mark()

    def close(self) -> None:
        """Flushes and closes the files."""
        try:
            self.flush()
            if self._file is not None:
                self._file.join()
        finally:
            for opened in (self._file, self._events):
                if opened is not None:
                    opened.close()
            self._file = self._events = None


def _cut(path: Path, *, restored_step: int, mark: LogMark | None) -> bytes:
    """Removes the lines after `restored_step` from a metrics file, and returns what is left.

    A file that is not what the checkpoint says is kept under another name, and it is said.
    """
    content = path.read_bytes() if path.exists() else b""
    lines = content.splitlines(keepends=True)
    kept = b"".join(line for line in lines if restored_step and _is_kept(line, restored_step))
    damage = mark.damage(content) if mark is not None else None
    if damage is None and mark is None and restored_step:
        unreadable = sum(not is_line(line) for line in lines[:-1])  # the last may be half-written
        damage = f"{unreadable} of {len(lines)} lines cannot be read" if unreadable else None
    if damage is not None:
        beside = _kept_beside(path, content) if content else ""
        logger.warning("%s: %s%s", path, damage, beside)
    if kept != content:
        write_bytes_atomic(path, kept)
    return kept


def _kept_beside(path: Path, content: bytes) -> str:
    """Keeps the content of a file under another name; says which."""
    names = (f"{path.name}.damaged{number}" for number in ("", *(f".{n}" for n in range(2, 1000))))
    beside = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    write_bytes_atomic(beside, content)
    return f"; it is kept as {beside.name}"


def _is_kept(line: bytes, restored_step: int) -> bool:
    try:
        return is_line(line) and json.loads(line)["step"] <= restored_step
    except (KeyError, TypeError):
        return False
