"""Folders beside the checkpoints that do not count: half-written, damaged, or left behind.

Names: `<step>.corrupt` was found damaged, `<step>.superseded` was left behind when a run went back
to an earlier step and went on from there, `<step>.unlisted` has arrays and no manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from etils import epath

from avit_jax.checkpoints import manifest
from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local, sync_directory

_logger = logging.getLogger(__name__)
_UNFINISHED = ".orbax-checkpoint-tmp"  # part of the names of Orbax's own unfinished directories
_ASIDE = ("corrupt", "superseded")


def moved_before(directory: epath.Path) -> list[epath.Path]:
    """What does not count any more but shows that this is not a fresh run."""
    return [
        path
        for path in sorted(stores.children(directory))
        if path.name.partition(".")[2].startswith(_ASIDE)
    ]


def without_manifest(directory: epath.Path) -> list[epath.Path]:
    """Folders of steps that hold something and no manifest, newest first."""
    found = [
        path
        for path in stores.children(directory)
        if path.name.isdecimal() and path.is_dir() and not manifest.is_in(path)
    ]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def move(path: epath.Path, reason: str) -> None:
    """Give a checkpoint a name under which it does not count.

    Where nothing can be renamed it stays as it is, and will be passed over the next time, too.
    """
    name, count = f"{path.name}.{reason}", 1
    while (path.parent / name).exists():
        count += 1
        name = f"{path.name}.{reason}.{count}"
    try:
        stores.move_folder(path, path.parent / name, last=manifest.NAME)
    except OSError as error:
        _logger.warning("%s stays where it is (%s)", path, error.strerror or error)


def clear(directory: epath.Path, complete: Collection[int]) -> None:
    """Take away what killed processes left; arrays that are whole but for a manifest stay.

    Older ones than all that are complete were about to be removed, manifest first.
    """
    for path in without_manifest(directory):
        if stores.children(path) and int(path.name) > min(complete, default=-1):
            _logger.warning(
                "%s has no %s, so nobody knows whether it is whole: it is moved aside",
                path,
                manifest.NAME,
            )
            move(path, "unlisted")
    for path in stores.children(directory):
        unfinished = path.name.isdecimal() and int(path.name) not in complete
        if unfinished or _UNFINISHED in path.name:
            path.rmtree(missing_ok=True) if path.is_dir() else path.unlink(missing_ok=True)


def try_to_make(path: epath.Path) -> None:
    """Makes an unfinished folder of a checkpoint and takes it away again.

    Where Orbax cannot make it, its threads wait for it for ever, and the process with them.

    Raises:
        OSError: it cannot be made.
    """
    if is_local(path):
        trial = path.with_name(f"{path.name}{_UNFINISHED}")
        trial.mkdir()
        trial.rmdir()


def newer(directory: epath.Path, chosen: int, *, saved: int | None) -> list[str]:
    """Says what is newer than the checkpoint that is used, and why it is not, oldest first.

    Args:
        directory: of the checkpoints.
        chosen: the step that is used.
        saved: the step that was saved last, where that is known.
    """
    found = {int(path.name): "without manifest" for path in without_manifest(directory)}
    for path in moved_before(directory):
        step, _, reason = path.name.partition(".")
        if step.isdecimal() and reason.startswith("corrupt"):
            found[int(step)] = "damaged"
    if saved is not None:
        found.setdefault(saved, "gone")
    passed_over = [f"{step} ({why})" for step, why in sorted(found.items()) if step > chosen]
    if passed_over:
        _logger.warning(
            "The checkpoint of step %d is used, for newer ones in %s cannot be: %s",
            chosen,
            directory,
            ", ".join(passed_over),
        )
    return passed_over


def remove(path: epath.Path) -> None:
    """Remove a checkpoint that is not kept any more; wherever that ends, it does not count."""
    (path / manifest.NAME).unlink()
    if is_local(path):
        sync_directory(path)
    path.rmtree(missing_ok=True)
