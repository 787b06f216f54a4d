"""A file of JSON lines that grows with the work, and from which a killed process is resumed.

Lines are appended in the order of the work, so the number of complete lines says how much of it is
done: nothing is repeated and nothing lost, wherever the process was killed. A second, small file
beside it, written before the first line, says what the lines are about (a command, a checkpoint, a
list of images), so that different work is never appended to them; a diary, to which any work may
add, has none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from avit_jax.errors import UserError
from avit_jax.runtime import leases
from avit_jax.runtime.appended import Appended, open_appended
from avit_jax.runtime.files import is_local, plain, write_json_atomic
from avit_jax.runtime.locks import is_taken

logger = logging.getLogger(__name__)

Line = dict[str, Any]
SHOWN = 3  # differences that a message names
SYNC_SECONDS = 30.0


def identity_path(path: Path) -> Path:
    """The file beside `path` that says what its lines are about."""
    return path.with_name(path.name + ".meta.json")


class JsonLines:
    """Lines appended to `path`; open it with `with`.

    Args:
        path: of the file; made if it does not exist. In an object store lines are safe from `sync`
            on, see `appended.py`; a diary there is of whoever may write around it.
        identity: JSON values that say what the lines are about; those saved beside a file that
            exists must be the same. `None` for a diary.
        check: called with the number and the content of each line that is there already, in order;
            it raises UserError where this is not the line that would be written again.
        clock: returns seconds.

    Raises:
        UserError: the file holds other work, or something else, or is being written by another
            process, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: Mapping[str, Any] | None,
        check: Callable[[int, Line], None] = lambda number, line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._clock = path, clock
        self._held = contextlib.ExitStack()
        if identity is not None and not is_local(path):
            place = path.with_name(path.name + ".lock")
            self._held.enter_context(leases.held(path, place, leases.described("predict")))
        try:
            with self._as_user_error():
                self._file: Appended = open_appended(path)
        except BaseException:
            self._held.close()
            raise
        try:
            if is_local(path) and is_taken(self._file.fileno(), path):
                raise UserError(
                    f"another process is writing {os.fspath(path)!r}: wait for it, or write "
                    "another --output."
                )
            if identity is not None:
                self._check_identity(plain(identity))
            self.count = self._recover(check)
            self._synced = clock()
        except BaseException:
            self._file.close()
            self._held.close()
            raise

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines behind the last; they survive this process, and after `sync` a power cut."""
        text = [json.dumps(plain(line), allow_nan=False) + "\n" for line in lines]
        with self._as_user_error():
            self._file.write("".join(text).encode("ascii"))
        self.count += len(text)
        self._end += sum(map(len, text))  # of ASCII alone
        if self._clock() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Makes all lines survive a power cut; `append` does so from time to time.

        Raises:
            UserError: that is not possible, or somebody has removed or changed the file meanwhile.
        """
        leases.refuse_lost(self._path)
        self._file.refuse_changed(self._end)
        with self._as_user_error():
            self._file.sync()
        self._synced = self._clock()

    def close(self) -> None:
        """Closes the file, after making all lines survive a power cut."""
        with self._held:
            try:
                self.sync()
                self._file.join()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        # What is wrong with the file is often why something was raised.
        with contextlib.suppress(UserError) if kind else contextlib.nullcontext():
            self.close()

    def _check_identity(self, identity: Line) -> None:
        """Saves what the lines will be about; refuses a file that is about something else."""
        beside = identity_path(self._path)
        if next(iter(self._file.lines()), None) is None:
            write_json_atomic(beside, identity)  # also makes the name of the file itself durable
            return
        if not beside.exists():
            raise UserError(
                f"{os.fspath(self._path)!r} exists without its {beside.name}, so nobody knows what "
                "its lines are about: write another --output, or remove it."
            )
        saved = _read_identity(beside)
        changed = sorted(key for key in saved | identity if saved.get(key) != identity.get(key))
        if changed:
            differences = "; ".join(
                f"{key} was {_short(saved.get(key))}, is {_short(identity.get(key))}"
                for key in changed[:SHOWN]
            )
            if len(changed) > SHOWN:
                differences += f"; and {len(changed) - SHOWN} more"
            raise UserError(
                f"{os.fspath(self._path)!r} holds other work ({differences}): write another "
                f"--output, or remove it together with {beside.name}."
            )

    def _recover(self, check: Callable[[int, Line], None]) -> int:
        """Counts the complete lines and removes a partly written one after them."""
        count, end, torn = 0, 0, 0
        for text in self._file.lines():
            line = None if torn else _parse(text)
            if line is None:
                torn += len(text)
                continue
            check(count, line)
            count, end = count + 1, end + len(text)
        if torn:
            logger.warning("cut off a torn end of %d bytes behind line %d", torn, count)
            self._file.cut(end)
        self._end = end
        return count

    @contextlib.contextmanager
    def _as_user_error(self) -> Iterator[None]:
        """What a disk says, as a sentence; errors of stores are said where all of them are."""
        try:
            yield
        except OSError as error:
            if not is_local(self._path):
                raise
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"{os.fspath(self._path)!r} cannot be written ({error.strerror or error}): make room "
            "or write another --output; the same command goes on where this one stopped."
        )


def _parse(text: bytes) -> Line | None:
    """The content of a complete line, or `None` for one that is cut short or damaged."""
    if not text.endswith(b"\n"):
        return None
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _read_identity(path: Path) -> Line:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict) or not saved:
            raise ValueError("nothing is said in it")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{os.fspath(path)!r} cannot be read ({error}), so nobody knows what the lines beside "
            "it are about: write another --output, or remove both."
        ) from error
    return saved


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
