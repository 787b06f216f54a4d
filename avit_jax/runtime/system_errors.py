"""What the system refused, in one sentence: which path, why, and what to do about it.

Libraries raise what they please over a full disk or a folder that has gone; whatever it is, the
system's own error is in the chain of causes, or its words are in the text.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

AGAIN = "start the same command again"
# Words of libraries that are no Python and hand over a text: TensorStore, of which Orbax is made.
_CODES = {
    os.strerror(code): code
    for code in (
        errno.ENOSPC,
        errno.EFBIG,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOENT,
        errno.EIO,
    )
}
_WORDS = re.compile("|".join(map(re.escape, _CODES)))
_PATH = re.compile(r"""["'](/[^"']+)["']""")


def sentence(error: BaseException, *, place: str | os.PathLike[str] | None = None) -> str | None:
    """What to tell a user about an error; `None` for one that is not the system's.

    Args:
        error: whatever was raised; its causes are looked through.
        place: the file or folder that was being written, where the error does not say itself.
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            path = cause.filename2 or cause.filename or place
            return _said(cause.errno, None if path is None else _text(path), _reason(cause))
    for cause in _chain(error):
        found = _WORDS.search(str(cause))
        if found is not None:
            path = _PATH.search(str(cause))
            where = path[1] if path and place is None else place
            code = _CODES[found[0]]
            return _said(code, None if where is None else _text(where), found[0])
    return None


def _text(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else str(path)


def _said(code: int, path: str | None, reason: str) -> str:
    where = path or "what was being written"
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"there is no room for {where} ({reason}): make room and {AGAIN}."
    if code == errno.EROFS:
        return f"{where} lies where nothing can be written ({reason}): write another path."
    if code in (errno.EACCES, errno.EPERM):
        return (
            f"{where} is not for this user to use ({reason}): change its owner or mode (chown, "
            "chmod), or write another path."
        )
    if code == errno.EISDIR:
        return f"{where} is a folder where a file is meant to be: move it away and {AGAIN}."
    if code in (errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return f"{where} is no folder, or one on the way to it is a file: move it away and {AGAIN}."
    if code == errno.ENOENT:
        gone = where if path is None else _first_missing(path)
        return f"{gone} has gone, or was never there: bring it back and {AGAIN}."
    return f"{where} cannot be used ({reason}): check the disk and {AGAIN}, or write another path."


def _first_missing(path: str) -> str:
    """The uppermost folder on the way to a path that is not there; the path itself if none is."""
    missing = [place for place in (Path(path), *Path(path).parents) if not os.path.lexists(place)]
    return str(missing[-1]) if missing else path


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
