"""Configs as JSON: what a run leaves in its workdir, and what has changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from avit_jax.errors import UserError


def to_json(config: ConfigDict) -> str:
    """The config as JSON, keys sorted."""
    return json.dumps(plain(config.to_dict()), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote."""
    return ConfigDict(json.loads(text))


def read(file: Path) -> ConfigDict:
    """The config that a run has left in its workdir.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if not {"model", "method", "train"} <= set(json.loads(text)):
            raise ValueError("a part is missing")
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error}): put a sound copy in its place, or use another workdir."
        ) from error
    return from_json(text)


def differences(config: ConfigDict, saved: str, *, ignored: tuple[str, ...] = ()) -> list[str]:
    """Keys in which `config` differs from a saved JSON, as "key: saved -> now" lines.

    Args:
        config: of this run.
        saved: from `to_json`.
        ignored: prefixes of keys that may change between two parts of one run.
    """
    now, then = _flat(json.loads(to_json(config))), _flat(json.loads(saved))
    return [
        f"{key}: {then.get(key, 'absent')!r} -> {now.get(key, 'absent')!r}"
        for key in sorted(now.keys() | then.keys())
        if not key.startswith(ignored) and now.get(key, ...) != then.get(key, ...)
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def plain(value: Any) -> Any:
    """Tuples as lists, mixtures (pairs of names and values) as dicts: what JSON can hold."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        if value and all(isinstance(part, tuple) and len(part) == 2 for part in value):
            if all(isinstance(part[0], str) for part in value):
                return {key: plain(part) for key, part in value}
        return [plain(part) for part in value]
    return value
