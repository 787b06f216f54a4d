"""How a config trains: the recipe of a step, its learning rate and optimiser, and their state."""

from __future__ import annotations

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax.data.mix import Mix
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import abstract_on
from avit_jax.training import optimizers
from avit_jax.training.step import Recipe, TrainState, init_state
from avit_jax.training.teacher import make_teacher


class Optimization:
    """What the training steps of a config need beside the data.

    Attributes:
        model: that learns.
        recipe: of a step.
        schedule: learning rate by step.
        optimizer: of optax.

    Raises:
        UserError: `config.teacher` names no usable model.
    """

    def __init__(self, config: ConfigDict, model: Model, total_steps: int):
        train = config.train
        self.model = model
        self.recipe = Recipe(
            total_steps=total_steps,
            seed=config.seed,
            accumulation=train.accumulation,
            label_smoothing=train.label_smoothing,
            ema_decay=train.ema_decay,
            log_every=config.log.every,
            mix=Mix(**config.data.mix),
            teacher=make_teacher(config, model),
        )
        self.schedule: optax.Schedule = optimizers.learning_rate(
            config.optim, batch_size=train.batch_size, total_steps=total_steps
        )
        self.optimizer: optax.GradientTransformationExtraArgs = optimizers.build(
            config.optim, self.schedule, trainable=model.trainable(model.abstract_params())
        )

    def init_state(self) -> TrainState:
        """The state in front of the first step."""
        return init_state(self.model, self.optimizer, self.recipe)

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes, dtypes and shardings of the training state."""
        return abstract_on(mesh, jax.eval_shape(self.init_state))
