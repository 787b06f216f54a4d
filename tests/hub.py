"""A stand-in for the Hugging Face Hub's package: tests use no network."""

from __future__ import annotations

import sys
import types

import pytest


class EntryNotFoundError(Exception):
    """The repository has no such file."""


class LocalEntryNotFoundError(EntryNotFoundError):
    """There is no network, and no copy."""


class RepositoryNotFoundError(Exception):
    """There is no such repository."""


def stand_in(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A hub whose files, or errors, a test puts in `there`; `asked` is what was downloaded.

    Files are found by `owner/name/file`, or by their name alone in any repository.
    """
    hub = types.ModuleType("huggingface_hub")
    hub.errors = types.ModuleType("huggingface_hub.errors")
    for error in (EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError):
        setattr(hub.errors, error.__name__, error)
    hub.there, hub.asked = {}, []

    def hf_hub_download(repo_id, filename):
        hub.asked.append((repo_id, filename))
        anywhere = hub.there.get(filename, EntryNotFoundError())
        found = hub.there.get(f"{repo_id}/{filename}", anywhere)
        if isinstance(found, Exception):
            raise found
        return str(found)

    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", hub.errors)
    return hub
