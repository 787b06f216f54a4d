"""Experiments as typed, locked configs: defaults, what they may not say, how they are saved."""

from avit_jax.config.classes_of_folder import ClassesOfFolder
from avit_jax.config.defaults import Settings
from avit_jax.config.model import base, make_model
from avit_jax.config.saved import (
    EXPORTED,
    beside,
    change,
    changeable_keys,
    changed,
    damaged,
    described,
    differences,
    from_json,
    is_of_others,
    kept_at,
    keys_of_use,
    read,
    to_json,
    typed,
)
from avit_jax.config.unknown_key import unknown_key
from avit_jax.config.variants import debug, parse_arg

__all__ = [
    "EXPORTED",
    "ClassesOfFolder",
    "Settings",
    "base",
    "beside",
    "change",
    "changeable_keys",
    "changed",
    "damaged",
    "debug",
    "described",
    "differences",
    "from_json",
    "is_of_others",
    "kept_at",
    "keys_of_use",
    "make_model",
    "parse_arg",
    "read",
    "to_json",
    "typed",
    "unknown_key",
]
