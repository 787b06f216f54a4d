"""A config file whose variant is the place of a run: `--config file_of_run.py:runs/avit_digits`.

What the command line takes where no `--config` is written, so that flags change the config of a run
as they change that of a file.
"""

from __future__ import annotations

import os

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.errors import UserError
from avit_jax.runtime.stores import as_path


def get_config(place: str) -> ConfigDict:
    """The config that a workdir, an exported folder or a converted weight file keeps.

    Raises:
        UserError: it keeps none.
    """
    path = as_path(os.path.expanduser(place))
    found = configs.kept_at(path)
    if found is None:
        what = "does not say what model it is of" if path.exists() else "does not exist"
        raise UserError(
            f"{place} {what}: write --config FILE, or --model NAME such "
            "as deit_tiny_patch16_224, or the --workdir of a trained run, which knows its own."
        )
    return configs.typed(found)
