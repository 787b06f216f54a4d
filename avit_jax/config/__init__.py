"""Experiments as typed, locked configs: defaults, what they may not say, how they are saved."""

from avit_jax.config.checks import validate
from avit_jax.config.defaults import base, debug, make_model, parse_arg
from avit_jax.config.saved import differences, from_json, read, to_json

__all__ = [
    "base",
    "debug",
    "differences",
    "from_json",
    "make_model",
    "parse_arg",
    "read",
    "to_json",
    "validate",
]
