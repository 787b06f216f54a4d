"""The log of a training: one line of `metrics.jsonl` per measurement, and TensorBoard events.

After an interruption, lines from beyond the restored checkpoint are removed, so the log of a
resumed run reads like that of an uninterrupted one.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from avit_jax.errors import UserError
from avit_jax.runtime import leases
from avit_jax.runtime.appended import Appended, open_appended
from avit_jax.runtime.files import is_local, plain, write_text_atomic
from avit_jax.runtime.stored_events import StoredEvents
from avit_jax.runtime.stores import as_path


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
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        restored_step: int = 0,
        tensorboard: bool = True,
    ) -> None:
        self._workdir = as_path(workdir)
        self._file: Appended | None = None
        self._events = None
        if jax.process_index() != 0:
            return
        path = self._workdir / "metrics.jsonl"
        if not is_local(path):
            open_appended(path).close()  # of what a killed process has left, one object
        _cut(path, restored_step=restored_step)
        self._file = open_appended(path)
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
        self._file.write((json.dumps(line, allow_nan=False) + "\n").encode("utf-8"))
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
            self._file.sync()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes the files."""
        self.flush()
        if self._file is not None:
            self._file.join()
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()
            self._events = None


def _cut(path: Path, *, restored_step: int) -> None:
    """Removes the lines after `restored_step` and lines that are no JSON from a metrics file."""
    if not path.exists():
        return
    text = path.read_bytes().decode("utf-8", "replace")
    lines = io.StringIO(text, newline="\n").readlines()
    kept = [line for line in lines if restored_step and _is_kept(line, restored_step)]
    if kept != lines:
        write_text_atomic(path, "".join(kept))


def _is_kept(line: str, restored_step: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= restored_step
    except (ValueError, KeyError, TypeError):
        return False
