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
from collections.abc import Callable, Iterator

GRACE_SECONDS = 20.0  # for tidying up, which takes well below a second where nothing hangs


def spoken(status: int, *, grace_seconds: float = GRACE_SECONDS) -> None:
    """From here on this process has so long to end by itself; then it ends with `status`."""
    threading.Thread(target=_end, args=(status, grace_seconds), daemon=True).start()


@contextlib.contextmanager
def last_of(is_alone: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """For all that a process does; behind it the process ends, with the status it would have.

    Args:
        is_alone: whether no other process waits for the end of this one, which takes its own time.
    """
    status = 1  # of an error that is not told in a sentence
    try:
        yield
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        raise
    finally:
        if is_alone():
            spoken(status)


def _end(status: int, seconds: float) -> None:
    time.sleep(seconds)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("warning: ended without what still hangs\n")
        sys.stderr.flush()
    os._exit(status)
