"""Who may write: one process at a time, until it is done or dead.

A lock is the operating system's on an open file, so it goes with the process that holds it: nothing
has to be cleared away after a kill or a power cut. In an object store it is a lease (`leases.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import jax

from avit_jax.errors import UserError
from avit_jax.runtime import leases
from avit_jax.runtime.files import is_local
from avit_jax.runtime.processes import in_all_or_none

logger = logging.getLogger(__name__)

LOCK = ".lock"  # in a workdir that is being written


@contextlib.contextmanager
def only_writer(workdir: Path, mode: str) -> Iterator[None]:
    """Keeps every other run that writes in `workdir` out; all processes of this one call it.

    Args:
        workdir: made if it does not exist, and taken away again if nothing was written.
        mode: that writes there, for the message that others get.

    Raises:
        UserError: another run is writing there, or it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        if jax.process_index() == 0 and is_local(workdir):
            in_all_or_none(lambda: held.enter_context(_held(workdir, mode)))
        elif jax.process_index() == 0:
            lease = leases.held(workdir, workdir / LOCK, leases.described(mode))
            in_all_or_none(lambda: held.enter_context(lease))
        else:
            in_all_or_none(lambda: None)
        yield


def is_taken(descriptor: int, path: Path) -> bool:
    """Whether another process has locked an open file; where none has, this one has it now.

    It stays so until the file is closed. Where files cannot be locked, nobody ever has.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        logger.info("%s lies where files cannot be locked: start one process only", path)
    return False


@contextlib.contextmanager
def _held(workdir: Path, mode: str) -> Iterator[None]:
    is_new, path = not workdir.exists(), workdir / LOCK
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        place = error.filename or path
        raise UserError(
            f"--workdir {workdir} cannot be written to ({place}: {error.strerror or error}): write "
            "another path, or move away what is in the way."
        ) from error
    try:
        with contextlib.suppress(OSError):  # another user's file says who that was
            os.ftruncate(descriptor, 0)
            os.write(
                descriptor, f"--mode {mode}, process {os.getpid()} on {platform.node()}".encode()
            )
        yield
    finally:
        # While it is still locked: whoever opens the name from now on makes a file of their own.
        with contextlib.suppress(OSError):
            if _is_named(descriptor, path):
                path.unlink()
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):
                workdir.rmdir()


def _locked(path: Path) -> int:
    """The descriptor of the locked file that has the name `path`."""
    while True:
        descriptor = _opened(path)
        try:
            if is_taken(descriptor, path):
                owner = os.read(descriptor, 200).decode("utf-8", "replace") or "another process"
                raise UserError(
                    f"{path.parent} is being written by another run ({owner}): wait for it or "
                    "stop it, or write another --workdir."
                )
            # Its last owner may have taken it away between the two lines above.
            if _is_named(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)  # of another user; it can be locked all the same


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file still has its name."""
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
