"""Whose workdir it is: a run goes on with the config it was started with, or not at all."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from avit_jax.runtime.files import write_text_atomic

CONVERTED = "converted.json"  # in a workdir of converted weights: where they are from


def refuse_other_run(config: ConfigDict, workdir: Path) -> bool:
    """Whether `workdir` is new to this config; what is there otherwise is to be gone on with.

    A run goes on under the settings it was started with, those apart that may change, and also
    where it is older than some of them, see `config/settings.py`. One that ended before its first
    checkpoint has trained nothing, so any config may follow it.

    Raises:
        UserError: `workdir` belongs to converted weights, or another config has trained there.
    """
    if (workdir / CONVERTED).exists():
        raise UserError(
            f"{workdir} holds converted weights and no state of an optimiser: start from them with "
            f"--config.init.workdir {workdir} and another --workdir."
        )
    file = workdir / "config.json"
    if not file.exists():
        return True
    saved = configs.to_json(configs.read(file))
    may_change = configs.changeable_keys(config)
    lines = configs.differences(config, saved)
    changed = [line for key, line in lines.items() if key not in may_change]
    if changed and Checkpoints(workdir / "checkpoints").steps():
        raise UserError(
            f"{workdir} was started with another config ({'; '.join(changed)}): "
            "write another --workdir, or the same settings."
        )
    return bool(changed)


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Write the config into `workdir`, which belongs to this run from then on.

    To be called once everything that the config names was found: a mistyped path should leave no
    workdir behind that the corrected command is then refused for.
    """
    if jax.process_index() == 0:
        write_text_atomic(workdir / "config.json", configs.to_json(config))
