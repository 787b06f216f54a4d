"""Who may write in an object store: one process at a time, until it is done or dead.

A store has no locks that go with a process, so an owner keeps an object that it writes anew every
`BEAT` seconds; one that was not written for `EXPIRY` seconds holds nobody up any more. Whoever
wants to write puts an object of their own beside it and then looks for others: listings of GCS and
S3 show what was written before, so of two that come at once at least one sees the other. No store
needs conditional writes for this, and all times are the store's own, or differences of one clock.

An owner that stood still for so long that another may have begun finds out at its next beat, and
`refuse_lost` stops it before it writes more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import random
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from avit_jax.errors import UserError
from avit_jax.runtime import stores

logger = logging.getLogger(__name__)

BEAT, EXPIRY = 15.0, 60.0  # seconds between two writes, and after the last one until it is void
POLL = 1.0
_TRIES = 5  # of several that begin in the same moment and all give way

_lost: dict[str, str] = {}  # places that this process held, and why it does not any more


def refuse_lost(place: Path) -> None:
    """Raises UserError where this process has lost a lease: another may be writing there."""
    why = _lost.get(os.fspath(place))
    if why is not None:
        raise UserError(
            f"{place}: {why}, so another run may be writing there: this one stops; the same "
            "command goes on from the newest checkpoint once the other has ended."
        )


@contextlib.contextmanager
def held(place: Path, folder: Path, owner: str, *, expiry: float = EXPIRY) -> Iterator[None]:
    """Keeps every other holder of a lease in `folder` out.

    Args:
        place: in a store, that is written to, for messages and `refuse_lost`.
        folder: of the objects of those who want to write there.
        owner: what this process does, for the message that others get.
        expiry: seconds after which an owner that does not write its object any more is dead.

    Raises:
        UserError: another owner is alive.
    """
    mine = folder / uuid.uuid4().hex
    content = json.dumps({"owner": owner, "pid": os.getpid(), "where": _pid_namespace()})
    _acquire(place, mine, content, expiry)
    _lost.pop(os.fspath(place), None)
    done = threading.Event()
    arguments = (place, mine, content, expiry, done)
    beating = threading.Thread(target=_beat, args=arguments, daemon=True, name="lease")
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()
        mine.unlink(missing_ok=True)
        _lost.pop(os.fspath(place), None)


def _acquire(place: Path, mine: Path, content: str, expiry: float) -> None:
    for attempt in range(_TRIES):
        mine.write_text(content)
        try:
            others = [path for path in stores.children(mine.parent) if path.name != mine.name]
            ages = {path: _age(path, mine) for path in others}
            dead = [p for p, age in ages.items() if age is None or age > expiry or _has_ended(p)]
            for path in dead:
                path.unlink(missing_ok=True)
            alive = [path for path in others if path not in dead]
            if not alive:
                return
        except BaseException:
            mine.unlink(missing_ok=True)
            raise
        mine.unlink()  # nobody else is to wait for one that waits
        # Of two that began at once both may be here; of any other the younger one gives way.
        if ages[alive[0]] < 2 * POLL and attempt < _TRIES - 1:
            time.sleep(random.uniform(0, 2 * POLL))
        else:
            _await_end(place, alive[0], expiry - ages[alive[0]])
    raise UserError(f"{place} is wanted by several runs at once: start one of them.")


def _await_end(place: Path, other: Path, seconds: float) -> None:
    """Returns when another owner is gone or dead; raises UserError once it shows to be alive."""
    name, written = _owner(other), _written(other)
    logger.info(
        "%s is being written by another run (%s), or was: waiting for %.0f s at most to see "
        "whether it still is",
        place,
        name,
        seconds,
    )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(POLL)
        now = _written(other)
        if now is None:
            return
        if now != written:
            raise UserError(
                f"{place} is being written by another run ({name}): wait for it or stop it, or "
                "write another path."
            )


def _beat(place: Path, mine: Path, content: str, expiry: float, done: threading.Event) -> None:
    """Writes the object anew until `done`, or until another may have taken its place."""
    last = time.monotonic()
    while not done.wait(min(BEAT, expiry / 4)):
        try:
            if not mine.exists():
                _lost[os.fspath(place)] = "another run took this one for dead"
                return
            mine.write_text(content)
            last = time.monotonic()
        except Exception:  # of any client; the next beat may do
            if time.monotonic() - last > expiry:
                _lost[os.fspath(place)] = f"the store did not answer for {expiry:.0f} s"
                return


def _age(path: Path, now: Path) -> float | None:
    """Seconds since an object was written, by the clock of the store; `None` if it is gone."""
    written, latest = _written(path), _written(now)
    return None if written is None else max(0.0, latest - written)


def _written(path: Path) -> float | None:
    try:
        return stores.filesystem(path).modified(os.fspath(path)).timestamp()
    except FileNotFoundError:
        return None


def _owner(path: Path) -> str:
    try:
        return json.loads(path.read_text())["owner"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "another process"


def _has_ended(path: Path) -> bool:
    """Whether the owner was a process of this machine, as seen from here, that is no more."""
    try:
        said = json.loads(path.read_text())
        if said["where"] != _pid_namespace() or said["where"] is None:
            return False
        os.kill(int(said["pid"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (ValueError, KeyError, TypeError, PermissionError):
        return False
    return False


def _pid_namespace() -> str | None:
    """What tells the processes of this boot of this machine, or container, from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def described(mode: str) -> str:
    """What this process says of itself to others."""
    return f"--mode {mode}, process {os.getpid()} on {platform.node()}"
