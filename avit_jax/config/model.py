"""A config of all settings with their defaults, and the model that a config describes.

A config file calls `base(model=...)`, changes what its experiment changes, and returns the result.
Every value can be changed on the command line (`--config.optim.learning_rate 1e-3`); types are
checked, and a key that does not exist is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from avit_jax import zoo
from avit_jax.config import settings
from avit_jax.config.defaults import Settings
from avit_jax.config.settings import Setting, of_dataclass
from avit_jax.errors import UserError
from avit_jax.methods.base import Model


def base(*, model: str, method: Mapping[str, Any] | None = None) -> ConfigDict:
    """All settings with their defaults, for a named model; `method` changes the method's own."""
    created = zoo.create_model(model, method=method)
    return ConfigDict(settings.defaults(_of_model(model, created) | _of_every_model())).lock()


def make_model(config: ConfigDict) -> Model:
    """The model that a config describes.

    Raises:
        UserError: values that contradict each other.
    """
    overrides = config.model.to_dict()
    return zoo.create_model(
        overrides.pop("name"), method=settings.plain(config.method.to_dict()), **overrides
    )


def declared(name: Any) -> dict[str, Any]:
    """All settings of a named model's configs; without those of the model if there is no such."""
    try:
        return _of_model(name, zoo.create_model(str(name))) | _of_every_model()
    except UserError:
        return _of_every_model()


def _of_model(name: str, created: Model) -> dict[str, Any]:
    return {
        "model": {"name": Setting(name), **of_dataclass(created.shape)},
        "method": of_dataclass(created.settings),
    }


def _of_every_model() -> dict[str, Any]:
    """Made anew for each config, for a config changes what is unset in it."""
    return of_dataclass(Settings())
