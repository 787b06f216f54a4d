"""Named models: every method on every named backbone, under the names that users of timm expect."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import importlib
import itertools
from collections.abc import Mapping
from typing import Any

from avit_jax.errors import UserError
from avit_jax.methods import adavit, avit, dvt, plain
from avit_jax.methods.base import Model
from avit_jax.models import deit3, dino, t2t, vit
from avit_jax.models.family import Family, Published
from avit_jax.models.shape import Shape

# A new backbone is a file in `models/` and a name here, a new method a folder and a name here.
BACKBONES = (vit, deit3, dino, t2t)
METHODS = (plain, avit, adavit)
# Their exits are models of other methods, which are handed in.
CASCADES = (dvt,)


@functools.cache
def families() -> tuple[Family[Model], ...]:
    """All families of named models, in the order in which they are shown."""
    backbones = [family for backbone in BACKBONES for family in backbone.FAMILIES]
    single = list(itertools.chain.from_iterable(m.families(backbones) for m in METHODS))
    cascades = itertools.chain.from_iterable(m.families(single) for m in CASCADES)
    return (*single, *cascades)


def published_weights(name: str) -> Published:
    """Where weights for a named model are published, and what they expect of images.

    Raises:
        UserError: none are known.
    """
    for family in families():
        if name in family.published:
            return family.published[name]
    raise UserError(f"no published weights of {name!r} are known: docs/models.md lists the others.")


@functools.cache
def _models() -> dict[str, Model]:
    return {name: model for family in families() for name, model in family.members.items()}


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern, such as `"avit*"`."""
    return sorted(fnmatch.filter(_models(), pattern))


def named(name: str) -> Model:
    """The model behind a name, with the settings it has by default.

    Raises:
        UserError: unknown name.
    """
    if ":" in name:
        return _imported(name)
    if name not in _models():
        close = difflib.get_close_matches(name, _models(), n=4, cutoff=0.6)
        alike = f"choose one of {', '.join(close)}, or another, for " if close else ""
        raise UserError(
            f"model {name!r} is unknown: {alike}list_models() has all {len(_models())}; write "
            "my_package.my_module:NAME for a model of your own."
        )
    return _models()[name]


def _imported(name: str) -> Model:
    """A model of the user's own: `module:NAME`, an instance of a subclass of `Model`."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"model {name!r} cannot be imported ({error}): write the name of a module that Python "
            "finds from here, a colon, and the name of the model in it."
        ) from error
    found = getattr(module, attribute, None)
    if not isinstance(found, Model):
        models = [key for key, value in vars(module).items() if isinstance(value, Model)]
        raise UserError(
            f"{attribute!r} in {module_name} is {'missing' if found is None else 'no Model'}: "
            f"write {module_name}:NAME with one of {', '.join(models) or 'its models (none yet)'}."
        )
    return found


def plain_model(shape: Shape) -> Model:
    """The plain transformer of these sizes, which skips nothing: a teacher, say."""
    return plain.Model(shape, plain.Settings())


def create_model(name: str, *, method: Mapping[str, Any] | None = None, **overrides: Any) -> Model:
    """A named model, with some of its settings changed.

    Args:
        name: one of `list_models()`, or `my_package.my_module:NAME` for a model of your own, see
            `methods/base.py`.
        method: settings of the method (`gate_scale`, `ponder_weight`, `prior`, ...).
        **overrides: sizes of the backbone (`image_size`, `num_classes`, `embed_dim`, ...).

    Raises:
        UserError: unknown model, unknown setting (the valid ones are listed), or values that
          contradict each other.
    """
    model = named(name)
    return dataclasses.replace(
        model,
        shape=_changed(model.shape, overrides, f"create_model({name!r})"),
        settings=_changed(model.settings, method or {}, f"create_model({name!r}, method=...)"),
    )


def _changed(options: Any, overrides: Mapping[str, Any], where: str) -> Any:
    valid = [field.name for field in dataclasses.fields(options)]
    unknown = sorted(set(overrides) - set(valid))
    if unknown:
        raise UserError(
            f"{where} got unknown settings {', '.join(unknown)}: "
            f"valid ones are {', '.join(valid) or 'none'}."
        )
    return dataclasses.replace(
        options, **{name: _inside(options, name, new, where) for name, new in overrides.items()}
    )


def _inside(options: Any, name: str, new: Any, where: str) -> Any:
    """A new value of a setting; of settings that have settings inside, those named are changed."""
    old = getattr(options, name)
    if dataclasses.is_dataclass(old) and isinstance(new, Mapping):
        return _changed(old, new, f"{name} of {where}")
    return new
