"""The log of a training: one line of `metrics.jsonl` per measurement, and TensorBoard events.

After an interruption, lines from beyond the restored checkpoint are removed, so the log of a
resumed run reads like that of an uninterrupted one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import jax

from avit_jax.errors import UserError
from avit_jax.runtime.files import is_local, plain, write_text_atomic


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
