"""Whether a command would be refused, before a machine is asked for: `--dry_run`.

What depends on the machine, such as devices, data and weights, is left to the run itself.
"""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from avit_jax.experiment import Experiment


def checked(config: ConfigDict, workdir: Path, mode: str) -> str:
    """What the command is about to do, in one sentence, if its config allows that.

    Raises:
        UserError: as the command itself would, for a config that contradicts itself.
    """
    experiment = Experiment(config, workdir)
    shape = experiment.model.shape
    return (
        f"nothing to refuse: --mode {mode} of {experiment.name}, {shape.num_classes} classes, "
        f"images of {shape.image_size} pixels, in {workdir}"
    )
