"""How a config trains: the recipe of a step, its learning rate and optimiser, and their state."""

from __future__ import annotations

import functools
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from avit_jax.config import Settings
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import abstract_on, replicated
from avit_jax.training import optimizers
from avit_jax.training.step import (
    Recipe,
    SkipStep,
    TrainState,
    TrainStep,
    init_state,
    make_skip_step,
    make_train_step,
)
from avit_jax.training.teacher import make_teacher


class Optimization:
    """What the training steps of a run need beside the data.

    Attributes:
        model: that learns.
        recipe: of a step.
        schedule: learning rate by step.
        optimizer: of optax.

    Raises:
        UserError: `config.teacher` names no usable model.
    """

    def __init__(self, settings: Settings, model: Model, total_steps: int):
        train, optim = settings.train, settings.optim
        self.model = model
        self.recipe = Recipe(
            total_steps=total_steps,
            seed=settings.seed,
            accumulation=train.accumulation,
            label_smoothing=train.label_smoothing,
            ema_decay=train.ema_decay,
            log_every=settings.log.every,
            mix=settings.data.mix,
            teacher=make_teacher(settings.teacher, model),
        )
        self.schedule: optax.Schedule = optimizers.learning_rate(
            optim, batch_size=train.batch_size, total_steps=total_steps
        )
        self.optimizer: optax.GradientTransformationExtraArgs = optimizers.build(
            optim, self.schedule, trainable=model.trainable(model.abstract_params())
        )

    def init_state(self, mesh: Mesh) -> TrainState:
        """The state in front of the first step, on the mesh."""
        return jax.jit(self._fresh_state, out_shardings=self._places(mesh))()

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes, dtypes and shardings of the training state."""
        return abstract_on(mesh, self._shapes)

    def compiled_steps(self, mesh: Mesh) -> tuple[TrainStep, SkipStep]:
        """A training step, and one that is left out; both take over the memory of their state."""
        placed = (self._places(mesh), replicated(mesh))
        step = make_train_step(self.model, self.optimizer, self.schedule, self.recipe, mesh)
        return (
            jax.jit(step, donate_argnums=0, out_shardings=placed),
            jax.jit(make_skip_step(self.recipe), donate_argnums=0, out_shardings=placed),
        )

    @functools.cached_property
    def _shapes(self) -> TrainState:
        return jax.eval_shape(self._fresh_state)

    def _fresh_state(self) -> TrainState:
        return init_state(self.model, self.optimizer, self.recipe)

    def _places(self, mesh: Mesh) -> Any:
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state(mesh))
