"""The state that a training begins with or goes on from, and the weights of it that count."""

from __future__ import annotations

import logging

import jax

from avit_jax.checkpoints.store import Checkpoints
from avit_jax.checkpoints.weights import initial_weights
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.models.functional import Params
from avit_jax.training.optimization import Optimization
from avit_jax.training.step import TrainState

logger = logging.getLogger(__name__)


def restore_or_init(
    experiment: Experiment, optimization: Optimization, checkpoints: Checkpoints
) -> TrainState:
    """The newest sound checkpoint of the run, or a fresh state.

    A fresh state takes the weights of `config.init` where that names any.

    Raises:
        UserError: the config is made for fine-tuning and names no weights, or they do not fit.
    """
    target = optimization.abstract_state(experiment.mesh)
    restored = checkpoints.restore(target)
    if restored is not None:
        logger.info("going on from step %d in %s", restored[0], experiment.workdir)
        return restored[1]
    initial = initial_weights(experiment.settings.init, experiment.model, experiment.mesh)
    if initial is None and not experiment.settings.init.scratch:
        raise UserError(
            "this config fine-tunes trained weights and none are named: write "
            "--config.init.weights FILE (DeiT's own, say) or --config.init.workdir RUN, or "
            "--config.init.scratch=True to start from random ones all the same."
        )
    state = optimization.init_state(experiment.mesh)
    if initial is not None:
        # The step donates its whole state, so the average may not share buffers with the weights.
        params, ema = initial.params, state.ema
        ema = None if ema is None else jax.tree.map(lambda leaf: leaf.copy(), params)
        state = state.replace(params=params, ema=ema)
    return state


def evaluated_weights(state: TrainState, *, weights: str) -> Params:
    """The parameters that evaluation uses: the moving average where there is one.

    Args:
        state: of the training.
        weights: "auto", "ema" or "raw", the last of which leaves the average out.
    """
    return state.params if weights == "raw" or state.ema is None else state.ema
