"""What goes beside an exported program: all that its user has to know about it."""

from __future__ import annotations

import logging
from typing import Any

import jax

from avit_jax.checkpoints import description
from avit_jax.execution.executions import find
from avit_jax.experiment import Experiment
from avit_jax.version import __version__

logger = logging.getLogger(__name__)

FORMAT = 1
OUTPUTS = {
    "logits": "[B, C] float32, in the order of labels",
    "depth": "[B, N] float32, layers that each token was computed in; prefix tokens first, then "
    "the patches row by row",
    "gmacs": "[B] float32, multiply-adds of each image in units of 1e9",
    "dropped": "[B] int32, only for execution capped: tokens that found no place",
}


def describe(experiment: Experiment) -> dict[str, Any]:
    """The content of `export.json`, as far as the experiment determines it.

    Names of places on this machine are left out of the config, for they concern nobody else.
    """
    settings, shape = experiment.settings, experiment.model.shape
    labels, _ = experiment.class_names
    return {
        "format": FORMAT,
        "model": experiment.name,
        "execution": _execution(experiment),
        "batch_size": settings.inference.batch_size,
        "dtype": shape.dtype,
        "labels": list(labels),
        "preprocessing": description.preprocessing(shape, settings.data.augment),
        "outputs": OUTPUTS,
        "versions": {"avit_jax": __version__, "jax": jax.__version__},
        "config": description.portable(experiment.config),
    }


def _execution(experiment: Experiment) -> str:
    """The execution that inference takes; masked where nobody chose one and its sizes are unknown.

    An exported program cannot measure a first batch.
    """
    execution, plan = find(experiment.execution), experiment.plan
    sized = plan is not None and jax.device_count() == 1 and not execution.needs_sizes(plan)
    chosen = experiment.settings.inference.execution != "auto"
    if chosen or execution.sized is None or sized:
        return execution.name
    logger.info(
        "masked execution is exported, for %s execution wants sizes: run --mode calibrate on one "
        "device",
        execution.name,
    )
    return execution.fallback.name
