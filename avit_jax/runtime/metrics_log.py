"""The log of a training: one line of `metrics.jsonl` per measurement, and TensorBoard events.

After an interruption, lines from beyond the restored checkpoint are removed, so the log of a
resumed run reads like that of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Mapping
from typing import Any

import jax

from avit_jax.errors import UserError
from avit_jax.runtime.files import is_local, of_path, plain, write_bytes_atomic
from avit_jax.runtime.growing_file import GrowingFile, LogMark, is_line

logger = logging.getLogger(__name__)


class MetricsWriter:
    """Appends metrics to `metrics.jsonl`, and to TensorBoard events where wanted.

    A line is `{"step": 100, "kind": "train", "loss": 1.25, ...}`; scalars go to TensorBoard as
    `train/loss`, lists only to the JSON lines. Only process 0 writes.

    Args:
        workdir: local directory of the run.
        restored_step: the step the run continues from. Lines and events of later steps, left by the
          interrupted run, are removed, and so is a half-written last line. 0 (nothing restored)
          starts an empty log.
        tensorboard: whether to write event files to `workdir/tensorboard`.
        mark: of the log as the restored checkpoint knows it; a file that does not begin so is kept
          beside, and a warning says what it lacks.

    Raises:
        ValueError: if `workdir` is in an object store, where files cannot be appended to.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        restored_step: int = 0,
        tensorboard: bool = True,
        mark: LogMark | None = None,
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
        kept = _cut(path, restored_step=restored_step, mark=mark)
        self._file = open(path, "ab", buffering=0)
        self._content = GrowingFile(path, kept)
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
        """
        if self._file is not None:
            self._content.refuse_changed(self._file.fileno())
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def mark(self) -> LogMark | None:
        """What has been written up to now; `None` in processes that write nothing."""
        return None if self._file is None else self._content.mark()

    def close(self) -> None:
        """Flushes and closes the files."""
        try:
            self.flush()
        finally:
            for opened in (self._file, self._events):
                if opened is not None:
                    opened.close()
            self._file = self._events = None


def _cut(path: str, *, restored_step: int, mark: LogMark | None) -> bytes:
    """Removes the lines after `restored_step` from a metrics file, and returns what is left.

    A file that is not what the checkpoint says is kept under another name, and it is said.
    """
    content = b""
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        content = file.read()
    lines = content.splitlines(keepends=True)
    kept = b"".join(line for line in lines if restored_step and _is_kept(line, restored_step))
    damage = mark.damage(content) if mark is not None else None
    if damage is None and mark is None and restored_step:
        unreadable = sum(not is_line(line) for line in lines[:-1])  # the last may be half-written
        damage = f"{unreadable} of {len(lines)} lines cannot be read" if unreadable else None
    if damage is not None:
        logger.warning("%s: %s%s", path, damage, _kept_beside(path) if content else "")
    if kept != content:
        write_bytes_atomic(path, kept)
    return kept


def _kept_beside(path: str) -> str:
    """Keeps a file under another name; says which."""
    numbers = itertools.count(2)
    beside = f"{path}.damaged"
    while os.path.exists(beside):
        beside = f"{path}.damaged.{next(numbers)}"
    shutil.copyfile(path, beside)
    return f"; it is kept as {os.path.basename(beside)}"


def _is_kept(line: bytes, restored_step: int) -> bool:
    try:
        return is_line(line) and json.loads(line)["step"] <= restored_step
    except (KeyError, TypeError):
        return False
