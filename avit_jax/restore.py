"""Where a state comes from: a checkpoint of this run, another run's weights, or a seed."""

from __future__ import annotations

import logging
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoint import Checkpoints
from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.models.module import Params
from avit_jax.sharding import abstract_on
from avit_jax.step import TrainState

logger = logging.getLogger(__name__)


def restore_or_init(experiment: Experiment, checkpoints: Checkpoints) -> TrainState:
    """The newest sound checkpoint of the run, or a fresh state.

    A fresh state takes the weights of `config.init.workdir` where that is given.
    """
    abstract = experiment.optimization.abstract_state(experiment.mesh)
    restored = checkpoints.restore(abstract)
    if restored is not None:
        logger.info("going on from step %d in %s", restored[0], experiment.workdir)
        return restored[1]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    state = jax.jit(experiment.optimization.init_state, out_shardings=shardings)()
    if experiment.config.init.workdir:
        params = load_weights(
            Path(experiment.config.init.workdir), experiment.model, experiment.mesh
        )
        # The step donates its whole state, so the average may not share buffers with the weights.
        ema = jax.tree.map(lambda leaf: leaf.copy(), params) if state.ema is not None else None
        state = state.replace(params=params, ema=ema)
    return state


def load_weights(workdir: Path, model: Model, mesh: Mesh, *, weights: str = "auto") -> Params:
    """The weights of a trained run, for a model with the same parameters.

    Args:
        workdir: of the run.
        model: that will use them; its method may be another one.
        mesh: to put them on.
        weights: "auto" (the moving average where there is one), "ema" or "raw".

    Raises:
        UserError: there is no such run, no checkpoint, or the parameters have other shapes.
    """
    saved = workdir / "config.json"
    if not saved.exists():
        raise UserError(
            f"{workdir} holds no config.json: write the workdir of a run that has been trained."
        )
    config = configs.from_json(saved.read_text())
    trained = configs.make_model(config)
    shapes, wanted = (
        jax.tree.map(lambda leaf: leaf.shape, m.abstract_params()) for m in (trained, model)
    )
    if shapes != wanted:
        raise UserError(
            f"the weights in {workdir} ({config.model.name}) have other sizes than this model: "
            "make embed_dim, depth, image_size, patch_size and num_classes the same."
        )
    # Only the weights are read: a run may be used after its optimiser has gone out of fashion.
    averaged = config.train.ema_decay and (weights or config.eval.weights) != "raw"
    name = "ema" if averaged else "params"
    target = {name: abstract_on(mesh, trained.abstract_params())}
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
    restored = checkpoints.restore(target, partial=True)
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no checkpoint yet: train that run first.")
    logger.info("weights (%s) of step %d in %s", name, restored[0], workdir)
    return restored[1][name]


def evaluated_weights(config: ConfigDict, state: TrainState) -> Params:
    """The parameters that evaluation uses: the moving average, if there is one and it is on."""
    return state.params if config.eval.weights == "raw" or state.ema is None else state.ema
