"""Methods of adaptive computation, one file or folder each; a new file here is found by name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from avit_jax.errors import UserError


def available() -> list[str]:
    """Names of all methods: the files of this folder that hold one."""
    return sorted(
        m.name for m in pkgutil.iter_modules(__path__) if m.name not in ("base", "schedule")
    )


def load(name: str) -> ModuleType:
    """The file of method `name`: its `Settings` and its `Model`.

    Raises:
        UserError: there is no such method.
    """
    if name not in available():
        raise UserError(f"method {name!r} is unknown: choose one of {', '.join(available())}.")
    return importlib.import_module(f"{__name__}.{name}")
