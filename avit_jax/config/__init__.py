"""Experiments as typed, locked configs: defaults, what they may not say, how they are saved."""

from avit_jax.config.defaults import Settings
from avit_jax.config.model import base, make_model
from avit_jax.config.saved import changeable_keys, differences, from_json, read, to_json
from avit_jax.config.variants import debug, parse_arg

__all__ = [
    "Settings",
    "base",
    "changeable_keys",
    "debug",
    "differences",
    "from_json",
    "make_model",
    "parse_arg",
    "read",
    "to_json",
]
