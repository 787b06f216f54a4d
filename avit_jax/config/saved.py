"""Configs as JSON: what a run leaves in its workdir, and what has changed since.

A saved config may be older than a setting, or name one that no longer exists: wherever it is read,
it is completed by what `settings.py` says of such.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from operator import getitem
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from avit_jax.config import settings
from avit_jax.config.model import base, declared
from avit_jax.config.unknown_key import unknown_key
from avit_jax.errors import UserError

EXPORTED = "export.json"  # in an exported folder, all that there is to say about it
SECTIONS = ("model", "method", "train")  # that every config has had


def to_json(config: ConfigDict) -> str:
    """The config as JSON, keys sorted."""
    return json.dumps(settings.plain(config.to_dict()), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote, today's or an older one."""
    return ConfigDict(_completed(json.loads(text)))


def read(file: Path) -> ConfigDict:
    """The config that a run has left in its workdir.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = file.read_text(encoding="utf-8")
        saved = json.loads(text)
        if not all(isinstance(saved[part], dict) for part in SECTIONS):
            raise ValueError("a part is no section")
        config = from_json(text)
        _refuse_other_kinds(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} is damaged ({error!r}): put a sound copy in its place, or use another workdir."
        ) from error
    return config


def _refuse_other_kinds(config: ConfigDict) -> None:
    """Raises TypeError for a section that is none, and a number, text or list where none can be."""
    try:
        default = base(model=config.model.name)
    except UserError:  # a model of another version: what uses it says so
        return
    for name, value in default.items():
        if isinstance(value, ConfigDict) != isinstance(config.get(name), ConfigDict):
            raise TypeError(f"{name} is {config.get(name)!r:.40}")
    with default.unlocked():
        default.update(config)


def kept_at(place: Path) -> ConfigDict | None:
    """The config that a workdir, an exported folder or a converted weight file keeps, if any.

    What weights elsewhere were trained from, and after whom, is not kept with them.

    Raises:
        UserError: it is damaged.
    """
    file = place / "config.json"
    if file.exists() and not is_of_others(file):
        return read(file)
    for file in (place / EXPORTED, beside(place)):
        kept = described(file)
        if kept is not None:
            try:
                return from_json(json.dumps(kept["config"] | {"init": {}, "teacher": {}}))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise damaged(file, error) from error
    return None


def is_of_others(file: Path) -> bool:
    """Whether a `config.json` is of another library, as folders from elsewhere have one."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(saved, dict) and saved.keys().isdisjoint(SECTIONS)


def described(file: Path) -> dict[str, Any] | None:
    """What a file of this project says of weights; `None` where there is none, or one of others.

    Raises:
        UserError: it is damaged.
    """
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(file, error) from error
    is_ours = isinstance(content, dict) and isinstance(content.get("format"), int)
    return content if is_ours else None


def damaged(file: Path, error: Exception) -> UserError:
    """What to raise where a file that describes weights cannot be understood."""
    return UserError(
        f"{file} is damaged ({error!r}): put a sound copy in its place, or move it away."
    )


def beside(weights: Path) -> Path:
    """The file that describes a weight file."""
    return weights.parent / f"{weights.name}.json"  # also of the folder ".", which has no name


def typed(saved: ConfigDict) -> ConfigDict:
    """A saved config as a config file makes it: locked, and each value of its setting's type."""
    config = base(model=saved.model.name).unlock()
    config.update(saved)
    return config.lock()


def changed(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """A typed config with other values, under the keys that the command line has.

    Args:
        config: stays as it is.
        values: such as `{"data.augment.crop_ratio": 0.9}`.

    Raises:
        UserError: no such key, or a value of another type.
    """
    copy = config.copy_and_resolve_references()
    change(copy, values)
    return copy


def change(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """The same in place, so that settings which follow from others follow the new values.

    Raises:
        UserError: no such key, or a value of another type.
    """
    for key, value in values.items():
        try:
            _refuse_section(config, key)
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            config.update_from_flattened_dict({key: plain})
        except UserError:
            raise
        except (AttributeError, KeyError) as error:
            raise UserError(unknown_key(str(key))) from error
        except (TypeError, ValueError) as error:
            kind = functools.reduce(getitem, key.split("."), config)
            raise UserError(
                f"config.{key} cannot be {value!r}: write a value like {kind!r}."
            ) from error


def _refuse_section(config: ConfigDict, key: str) -> None:
    found = functools.reduce(getitem, str(key).split("."), config)
    if isinstance(found, ConfigDict):
        raise UserError(
            f"config.{key} is a section: write each of its settings under a key of its own, such "
            f"as '{key}.{next(iter(found))}'."
        )


def differences(config: ConfigDict, saved: str) -> dict[str, str]:
    """Keys in which `config` differs from a saved JSON, with "key: saved -> now" for people.

    Only values that differ count: a key that one of the two lacks counts as its value before the
    setting existed.

    Args:
        config: of this run, or some sections of it.
        saved: from `to_json`.
    """
    now, then = (
        dict(settings.flat(_completed(json.loads(text)))) for text in (to_json(config), saved)
    )
    return {
        key: f"{key}: {then.get(key, 'absent')!r} -> {now.get(key, 'absent')!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key, ...) != then.get(key, ...)
    }


def changeable_keys(config: ConfigDict) -> set[str]:
    """Keys that may change between two parts of one run."""
    return settings.changeable_keys(declared(config.model.name))


def keys_of_use(config: ConfigDict) -> set[str]:
    """Keys that may differ where a trained run is used: they determine no parameter."""
    return settings.keys_of_use(declared(config.model.name))


def _completed(saved: Mapping[str, Any]) -> dict[str, Any]:
    return settings.completed(saved, declared(saved.get("model", {}).get("name")))
