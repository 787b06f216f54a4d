"""A config file whose variant is a model: `--model NAME` on the command line, all else default."""

from __future__ import annotations

from ml_collections import ConfigDict

from avit_jax import config as configs


def get_config(name: str) -> ConfigDict:
    """All settings with their defaults, for a named model; raises UserError for an unknown one."""
    return configs.base(model=name)
