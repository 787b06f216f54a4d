"""`avit_jax.train`: a training started from Python, such as in a notebook."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from avit_jax import config as configs
from avit_jax.config import by_name
from avit_jax.errors import UserError
from avit_jax.prediction.load_run import load_run
from avit_jax.prediction.loaded_run import LoadedRun
from avit_jax.runtime.compilation_cache import use_compilation_cache
from avit_jax.runtime.environment import require_device, use_own_dtypes
from avit_jax.runtime.stores import as_path
from avit_jax.training import loop


def train(
    recipe: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
) -> LoadedRun:
    """Train in this process, and load the finished run; as `--config recipe --workdir workdir`.

    A run that is there already is loaded, and one that was interrupted goes on from its newest
    checkpoint, to the same bits. A process that has begun to use a TPU keeps others from it, so
    from a notebook this is the way to train there.

    Args:
        recipe: a config by name, with its variant ("avit_digits:ci"), or the path of a file.
        workdir: where the run writes. A table of the model, a line for every `log.every` steps and
            a table of results go to standard output.
        config: other settings, under the keys of the command line:
            `{"train.epochs": 10.0, "data.dir": "photos"}`.

    Raises:
        UserError: no such config or setting, settings that contradict each other, unreadable data,
            another run in that workdir, or a loss that is not finite.
    """
    place = as_path(os.path.expanduser(workdir))
    if place.is_file():
        raise UserError(f"workdir {place} is a file: write the path of a folder.")
    if config is not None and not isinstance(config, Mapping):
        raise UserError(
            f'config is a {type(config).__name__}: write settings as {{"train.epochs": 10.0}}.'
        )
    chosen = by_name.load(recipe)
    configs.change(chosen, config or {})
    use_own_dtypes()
    require_device()
    use_compilation_cache()
    with contextlib.redirect_stderr(sys.stdout):  # notebooks show the other one as an alarm
        loop.train(chosen.copy_and_resolve_references(), place)
    return load_run(place)
