"""Which files of a folder are images: one answer for training, evaluation and prediction.

Operating systems leave files of their own in folders of photographs, and people keep notes and
annotations beside them. The former are left out as hidden files are; the latter, known by their
endings, are left out and counted. Whatever else is there counts as an image, also where it turns
out to be none: it is a bad example then, named with the reason.
"""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from avit_jax.data import stored_listing
from avit_jax.data.stored_listing import StoredEntry
from avit_jax.errors import UserError
from avit_jax.runtime.files import is_local

logger = logging.getLogger(__name__)

# What Windows, macOS, network drives and viewers write into folders, in lower case.
SYSTEM_NAMES = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r",
        "__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found",
    }
)  # fmt: skip
# Endings that no image has: notes, labels, settings of cameras and editors, archives, documents.
OTHER_ENDINGS = frozenset(
    {
        ".txt", ".md", ".rtf", ".pdf", ".doc", ".docx", ".html", ".htm", ".log", ".csv", ".tsv",
        ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".db", ".xmp", ".aae", ".thm",
        ".xls", ".xlsx", ".py", ".ipynb", ".sh", ".lnk", ".url", ".zip", ".tar", ".tgz", ".gz",
        ".7z", ".rar", ".mp4", ".mov", ".avi", ".mp3", ".wav", ".md5", ".sha256",
    }
)  # fmt: skip
NAMED = 3  # files that a message names


def files_below(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Images in a folder and below, and the other files: paths relative to `folder`.

    Files of the folder itself come first, then those of its subfolders by name. A link to a folder
    that it lies in is left out, for it has no bottom, and so is a second link to one folder. Links
    that lead nowhere, pipes and devices count as images, which cannot be read.

    Raises:
        UserError: a folder cannot be listed.
    """
    if not is_local(folder):
        return stored_listing.files_below(folder, hidden=_is_hidden, is_other=is_other_file)
    around = Path(os.path.realpath(folder)).parents
    outer = tuple(_identity(outside) for outside in around)
    others: list[str] = []
    return list(_files_below(os.fspath(folder), "", outer, others, set())), others


def tell_left_out(others: list[str], folder: str | os.PathLike[str]) -> None:
    """Says in one line of the log which files below a folder are not taken for images, if any."""
    if others:
        logger.info(
            "left out what ends as no image does below %s (%d: %s)",
            os.fspath(folder),
            len(others),
            shortened(others),
        )


def visible_entries(folder: str) -> Sequence[os.DirEntry[str] | StoredEntry]:
    """What is in a folder by name, without hidden entries and those of operating systems.

    Raises:
        UserError: the folder cannot be listed.
    """
    if not is_local(folder):
        return [entry for entry in stored_listing.entries(folder) if not _is_hidden(entry.name)]
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not _is_hidden(entry.name)]
    except OSError as error:
        raise UserError(
            f"folder {folder!r} cannot be listed ({error.strerror}): make it readable, or move it "
            "out of the input."
        ) from error
    return sorted(visible, key=lambda entry: entry.name)


def composed(name: str) -> str:
    """A name with its accents as Linux and Windows write them; macOS takes letters apart (NFD)."""
    return unicodedata.normalize("NFC", name)


def is_other_file(name: str) -> bool:
    """Whether a file's name says that it is no image."""
    return os.path.splitext(name)[1].lower() in OTHER_ENDINGS


def shortened(names: list[str]) -> str:
    """The first of many names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _files_below(
    root: str,
    below: str,
    outer: tuple[tuple[int, int], ...],
    others: list[str],
    linked: set[tuple[int, int]],
) -> Iterator[str]:
    """Yields images and adds other files to `others`.

    Args:
        root: path of the folder that is walked.
        below: path in it of the folder whose turn it is.
        outer: the folders around that one.
        others: grows.
        linked: folders that a link has led to, which grows: folders that link to each other would
            be walked on every way through them.
    """
    folder = os.path.join(root, below) if below else root
    visible = visible_entries(folder)
    identity = _identity(folder)
    if identity in outer:
        return
    inner = []
    for entry in visible:
        path = os.path.join(below, entry.name)
        if entry.is_dir():
            inner.append(path)
        elif is_other_file(entry.name):
            others.append(path)
        else:
            yield path
    for path in inner:
        if os.path.islink(os.path.join(root, path)):
            target = _identity(os.path.join(root, path))
            if target in linked:
                continue
            linked.add(target)
        yield from _files_below(root, path, (*outer, identity), others, linked)


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES
