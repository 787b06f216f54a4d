"""A folder that is written in full beside its final place and then takes it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from avit_jax.errors import UserError
from avit_jax.runtime.files import is_local, sync_directory
from avit_jax.viz.html_report import GENERATOR


@contextlib.contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `target` if nothing is raised.

    Only an older report is replaced, so that a mistyped path cannot cost a folder of photographs.

    Raises:
        UserError: `target` is something else, or not on a local disk.
    """
    if not is_local(target):
        raise UserError(f"--output {os.fspath(target)!r} is no local folder: write a local path.")
    if target.exists() and not _is_replaceable(target):
        raise UserError(
            f"--output {os.fspath(target)!r} exists and is no earlier report: write the path of a "
            "new folder."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    new, old = (target.with_name(f".{target.name}.{kind}{os.getpid()}") for kind in ("new", "old"))
    new.mkdir()
    try:
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


def _is_replaceable(target: Path) -> bool:
    if not target.is_dir():
        return False
    page = target / "index.html"
    if page.is_file():
        with page.open("rb") as file:
            return GENERATOR.encode() in file.read(2000)
    return not any(target.iterdir())
