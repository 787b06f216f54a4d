"""What is said of a setting where its default is declared, so that runs survive new settings.

A setting is a field of a dataclass, which says in its metadata what there is to say:

    workers: int = changeable(0)  # may change between two parts of one run
    rate: float = field(default=0.1, metadata={"before": 0.0})  # older runs behaved as with 0.0
    size: int = field(default=224, metadata={"use": True})  # may differ where a run is used
    kernel: bool = field(default=False, metadata={"config": False})  # no config sets it

A declaration is what is read from them: a tree of dicts, like the config that is made from it,
whose leaves are `Setting`s.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections.config_dict import FieldReference

Tree = Mapping[str, Any]  # of settings, or of their values
_AS_DEFAULT = object()
CHANGEABLE = {"changeable": True}  # of a field, or of one that is a section
OF_USE = {"use": True}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of a config.

    Attributes:
        default: of a new config; a `placeholder` where nothing is set.
        changeable: whether it may change between two parts of one run: it changes nothing that is
          learnt.
        before: value that reproduces the behaviour before the setting existed; the default if not
          given. Saved configs that lack the setting count as having this value.
        of_use: whether a trained run may be used with another value: it determines no parameter.
          What is changeable may as well.
    """

    default: Any
    changeable: bool = False
    before: Any = _AS_DEFAULT
    of_use: bool = False


# Settings that no longer exist, by their keys, with their last defaults. A saved config may hold
# them at that default (or at any value, where they were changeable); others bar its run.
RETIRED = {
    "inference.head_sizes": Setting(None, changeable=True),
}


def changeable(default: Any) -> Any:
    """A field that may change between two parts of one run."""
    return dataclasses.field(default=default, metadata=CHANGEABLE)


def expand_home(settings: Any, *names: str) -> None:
    """Makes paths that begin with `~` begin with the user's home, as not every shell does."""
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            object.__setattr__(settings, name, os.path.expanduser(value))


def of_dataclass(
    options: Any, before: Any = None, *, may_change: bool = False, of_use: bool = False
) -> dict[str, Any]:
    """The fields of a dataclass as a declaration whose defaults are the values of `options`.

    Values keep the types of their annotations in a config: a field that may be `None` takes values
    of its other type later; one that may be text or a structure (a depth prior) takes any value,
    and its dataclass checks it.

    Args:
        options: values of a new config. A named model has some of its own, but what runs did before
          a field existed does not follow from those.
        before: values before the fields existed; what the fields themselves say where unset.
        may_change: whether all fields may change between two parts of one run.
        of_use: whether a trained run may be used with other values of all fields.
    """
    hints = typing.get_type_hints(type(options))
    declared: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        said = field.metadata
        if not said.get("config", True):
            continue
        value, annotation = getattr(options, field.name), hints[field.name]
        earlier = field.default if before is None else getattr(before, field.name)
        earlier = value if earlier is dataclasses.MISSING else earlier
        changes = may_change or said.get("changeable", False)
        used = of_use or said.get("use", False)
        if dataclasses.is_dataclass(value):
            declared[field.name] = of_dataclass(value, earlier, may_change=changes, of_use=used)
            continue
        if isinstance(annotation, types.UnionType):
            kinds = [
                typing.get_origin(kind) or kind
                for kind in typing.get_args(annotation)
                if kind is not types.NoneType
            ]
            value = FieldReference(value, field_type=kinds[0] if len(kinds) == 1 else object)
        declared[field.name] = Setting(
            value, changeable=changes, before=said.get("before", earlier), of_use=used
        )
    return declared


def defaults(declared: Tree) -> dict[str, Any]:
    """The defaults of a declaration, for a `ConfigDict`."""
    return {
        name: defaults(value) if isinstance(value, Mapping) else value.default
        for name, value in declared.items()
    }


def changeable_keys(declared: Tree) -> set[str]:
    """Keys ("data.workers") that may change between two parts of one run."""
    known = dict(flat(declared)) | RETIRED
    return {key for key, value in known.items() if value.changeable}


def keys_of_use(declared: Tree) -> set[str]:
    """Keys that may differ where a trained run is used."""
    known = dict(flat(declared)) | RETIRED
    return {key for key, value in known.items() if value.of_use or value.changeable}


def completed(saved: Tree, declared: Tree, prefix: str = "") -> dict[str, Any]:
    """Saved values, with those of before for settings they lack, and without retired ones.

    A value that nothing is known of, or a retired one that is not the default, stays.

    Args:
        saved: plain values, as JSON holds them.
        declared: the settings that there are today.
        prefix: of the keys of both, for `RETIRED`.
    """
    found = {}
    for name, value in saved.items():
        if isinstance(value, Mapping) and isinstance(declared.get(name, {}), Mapping):
            found[name] = completed(value, declared.get(name, {}), f"{prefix}{name}.")
        elif name in declared or not _is_retired(prefix + name, value):
            found[name] = value
    for name in declared.keys() - found.keys():
        section = isinstance(declared[name], Mapping)
        found[name] = completed({}, declared[name]) if section else _before(declared[name])
    return found


def _is_retired(key: str, value: Any) -> bool:
    return key in RETIRED and value == _before(RETIRED[key])


def flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of keys ("optim.b1") and leaves."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


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


def _before(setting: Setting) -> Any:
    value = setting.default if setting.before is _AS_DEFAULT else setting.before
    return plain(value.get() if isinstance(value, FieldReference) else value)
