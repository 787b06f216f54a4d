"""A process that has said its last word ends, whatever its threads still wait for.

Python ends when all threads have. One that reads from a disk that hangs never does, nor one of
Orbax's that waits for a folder which could not be made.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

GRACE_SECONDS = 20.0  # for tidying up, which takes well below a second where nothing hangs


def spoken(status: int, *, grace_seconds: float = GRACE_SECONDS) -> None:
    """From here on this process has so long to end by itself; then it ends with `status`."""
    threading.Thread(target=_end, args=(status, grace_seconds), daemon=True).start()


def _end(status: int, seconds: float) -> None:
    time.sleep(seconds)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
