"""Whether a command would be refused, before a machine is asked for: `--dry_run`.

What depends on the machine, such as devices, data, weights and what can be written to, is left to
the run itself: it may be on another one, which has the packages and the rights for a store.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from avit_jax import command_line
from avit_jax.experiment import Experiment
from avit_jax.runtime import stores
from avit_jax.runtime.files import is_local


def checked(config: ConfigDict, workdir: str, mode: str) -> str:
    """What the command is about to do, in one sentence, if its config allows that.

    Raises:
        UserError: as the command itself would, for a config that contradicts itself, and for a
            place that no machine could write a run to.
    """
    stores.refuse_without_checkpoints("--workdir", workdir)
    if is_local(workdir):
        command_line.workdir_path(workdir)
    experiment = Experiment(config, Path(workdir))
    shape = experiment.model.shape
    return (
        f"nothing to refuse: --mode {mode} of {experiment.name}, {shape.num_classes} classes, "
        f"images of {shape.image_size} pixels, in {workdir}"
    )
