"""TensorBoard's event files of a run whose workdir is in an object store.

They are written to a local folder and uploaded whole, under the same names, whenever the log is
made safe: a few kilobytes for each line that was logged.
"""

from __future__ import annotations

import tempfile
from pathlib import Path


class StoredEvents:
    """A writer of tensorboardX whose files end up in a store."""

    def __init__(self, target: Path, *, purge_step: int) -> None:
        from tensorboardX import SummaryWriter

        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="avit_jax_")
        self._writer = SummaryWriter(self._folder.name, purge_step=purge_step)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Writes one number."""
        self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Uploads what was written so far; a thread of tensorboardX may be a little behind."""
        self._writer.flush()
        for file in Path(self._folder.name).iterdir():
            (self._target / file.name).write_bytes(file.read_bytes())

    def close(self) -> None:
        """Uploads all of it and takes the local files away."""
        self._writer.close()
        for file in Path(self._folder.name).iterdir():
            (self._target / file.name).write_bytes(file.read_bytes())
        self._folder.cleanup()
