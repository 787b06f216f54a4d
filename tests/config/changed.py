"""The base config with other values."""

from ml_collections import ConfigDict

from avit_jax import config as configs


def changed(**values) -> ConfigDict:
    """The base config with some values changed; `section__key` names them."""
    config = configs.base(model="avit_micro_patch4_32")
    for name, value in values.items():
        section, _, key = name.rpartition("__")
        (config[section] if section else config)[key] = value
    return config
