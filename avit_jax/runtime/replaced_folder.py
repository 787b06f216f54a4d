"""A folder that is written in full beside its final place and then takes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from avit_jax.errors import UserError
from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local, of_path, remains, remove_remains, sync_directory


@contextlib.contextmanager
def replaced_folder(
    target: Path, *, may_replace: Callable[[Path], bool] = lambda folder: False
) -> Iterator[Path]:
    """A new folder to write into, which becomes `target` if nothing is raised.

    An empty folder is always replaced, and another only if it is known for something that may go,
    so that a mistyped path cannot cost a folder of photographs. For a place in an object store the
    folder is a local one, which is uploaded.

    Args:
        target: the place to take.
        may_replace: whether this existing folder, which is not empty, may be replaced.

    Raises:
        UserError: `target` is something else.
    """
    hidden = target.with_name(f".{target.name}")
    if is_local(target):
        _bring_back(target, hidden)
    if target.exists() and not (
        _is_empty(target)
        or stores.is_unfinished(target)
        or (target.is_dir() and may_replace(target))
    ):
        raise UserError(
            f"--output {os.fspath(target)!r} exists and is no earlier report: write the path of a "
            "new folder."
        )
    if not is_local(target):
        with tempfile.TemporaryDirectory(prefix="avit_jax_") as local:
            yield Path(local)
            stores.put_folder(Path(local), target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_remains(hidden, "new")
    new, old = (hidden.with_name(f"{hidden.name}.{kind}{os.getpid()}") for kind in ("new", "old"))
    new.mkdir()
    try:
        with of_path(target):
            yield new
        if target.exists():
            target.rename(old)
        new.rename(target)
        sync_directory(target.parent)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def _bring_back(target: Path, hidden: Path) -> None:
    """Give a folder its name again whose process was killed between the two renames."""
    left = remains(hidden, "old")
    if left and not target.exists():
        os.rename(left[0], target)
    remove_remains(hidden, "old")


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not any(target.iterdir())
