"""Whose workdir it is: a run goes on with the config it was started with, or not at all."""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from avit_jax.export import convert
from avit_jax.runtime.files import write_text_atomic

# Settings that may differ between two parts of one run: they change nothing that is learnt.
CHANGEABLE = (
    "data.dir",
    "data.workers",
    "data.max_bad_share",
    "train.on_nonfinite",
    "train.max_rollbacks",
    "eval.every",
    "eval.batch_size",
    "checkpoint.",
    "log.tensorboard",
    "dense_twin",
    "inference.",
    "benchmark.",
)


def refuse_other_run(config: ConfigDict, workdir: Path) -> bool:
    """Whether `workdir` is new to this config; what is there otherwise is to be gone on with.

    A run that ended before its first checkpoint has trained nothing, so any config may follow it.

    Raises:
        UserError: `workdir` belongs to converted weights, or another config has trained there.
    """
    convert.refuse_to_train_in(workdir)
    file = workdir / "config.json"
    if not file.exists():
        return True
    saved = configs.to_json(configs.read(file))
    changed = configs.differences(config, saved, ignored=CHANGEABLE)
    if changed and Checkpoints(workdir / "checkpoints").steps():
        raise UserError(
            f"{workdir} was started with another config ({'; '.join(changed)}): "
            "write another --workdir, or the same settings."
        )
    return bool(changed)


def write_config(config: ConfigDict, workdir: Path) -> None:
    """Write the config there, once all that it names was found: a mistyped path claims nothing."""
    if jax.process_index() == 0:
        write_text_atomic(workdir / "config.json", configs.to_json(config))
