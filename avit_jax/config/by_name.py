"""Config files by their names: `avit_digits`, `avit_digits:ci`, or the path of a file."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from ml_collections import ConfigDict

from avit_jax.errors import UserError

_SECTIONS = ("model", "method", "train", "data", "seed")  # that every config has
_LIKE = "let it return avit_jax.config.base(model=...) with changes, as those of configs/ do"


def load(name: str | os.PathLike[str]) -> ConfigDict:
    """The config of a file as Python users name it, which the command line loads by its flags.

    Args:
        name: as in `path_of`.

    Raises:
        UserError: there is no such file, or it has no such variant.
    """
    file, _, variant = path_of(os.fspath(name)).partition(":")
    if not os.path.isfile(file):
        raise UserError(
            f"there is no config file {file!r}: write 'avit_digits', or another name of "
            f"{folder()}, or the path of a file."
        )
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise UserError(without_function(file))
    config = get_config(variant) if variant else get_config()
    refuse_no_experiment(config, file)
    return config


def without_function(file: str) -> str:
    """What to say of a config file that has no `get_config`."""
    return f"{file} has no function get_config: {_LIKE}."


def refuse_no_experiment(config: object, file: str) -> None:
    """Raises UserError unless what `get_config` of a file has returned is an experiment."""
    if not isinstance(config, ConfigDict):
        found = "nothing" if config is None else f"{config!r:.40}"
        raise UserError(f"get_config of {file} returns {found} instead of a config: {_LIKE}.")
    missing = [name for name in _SECTIONS if name not in config]
    if missing:
        raise UserError(f"the config of {file} has no {', '.join(missing)}: {_LIKE}.")


def path_of(config: str) -> str:
    """What to load, with its variant: a name such as `avit_digits:ci` becomes the path of a file.

    What is no name of this package stays as it is.
    """
    name, colon, variant = config.partition(":")
    file = folder() / f"{name.removesuffix('.py')}.py"
    is_name = os.path.basename(name) == name and not os.path.isfile(name)
    return f"{file}{colon}{variant}" if is_name and file.is_file() else config


def folder() -> Path:
    """Where the configs of this project lie: in a wheel inside of the package, else beside it."""
    package = Path(__file__).parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
