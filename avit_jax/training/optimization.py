"""How a config trains: the recipe of a step, its learning rate and optimiser, and their state."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from avit_jax.config import Settings
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import abstract_on, replicated
from avit_jax.training import optimizers, parameter_groups
from avit_jax.training.row_sizes import RowSizes
from avit_jax.training.step import (
    Recipe,
    SkipStep,
    TrainState,
    TrainStep,
    init_state,
    make_skip_step,
    make_train_step,
)
from avit_jax.training.stepping import StepsOnAllRows, StepsOnLiveRows
from avit_jax.training.teacher import make_teacher, refuse_on_rows


class Optimization:
    """What the training steps of a run need beside the data.

    Attributes:
        model: that learns.
        recipe: of a step.
        schedule: learning rate by step.
        optimizer: of optax.

    Raises:
        UserError: `config.teacher` names no usable model, `config.optim.freeze` no parameter or all
            of them, or model or teacher do not learn on live rows where `config.train.rows` asks
            for them.
    """

    def __init__(self, settings: Settings, model: Model, total_steps: int):
        train, optim = settings.train, settings.optim
        freeze, mix = tuple(map(str, optim.freeze or ())), settings.data.mix
        mixed_steps = None
        if mix.end_epoch:
            mixed_steps = round(mix.end_epoch / train.epochs * total_steps)
        self.model = model
        self.recipe = Recipe(
            total_steps=total_steps,
            seed=settings.seed,
            accumulation=train.accumulation,
            label_smoothing=train.label_smoothing,
            ema_decay=train.ema_decay,
            ema_warmup=train.ema_warmup,
            freeze=freeze,
            loss=train.loss,
            log_every=settings.log.every,
            mix=mix,
            mixed_steps=mixed_steps,
            erase=settings.data.erase,
            teacher=make_teacher(settings.teacher, model),
            on_live_rows=train.rows == "live",
        )
        if self.recipe.on_live_rows:
            model.check_learns_on_rows()
            refuse_on_rows(self.recipe.teacher, model.shape)
        self.images = train.batch_size // train.accumulation
        self._steps: dict[tuple[Mesh, tuple[int, ...] | None], TrainStep] = {}
        self.schedule: optax.Schedule = optimizers.learning_rate(
            optim, batch_size=train.batch_size, total_steps=total_steps, epochs=train.epochs
        )
        self.optimizer: optax.GradientTransformationExtraArgs = optimizers.build(
            optim,
            self.schedule,
            trainable=parameter_groups.trainable(model, freeze),
            factors=None
            if optim.layer_decay == 1
            else parameter_groups.rate_factors(model, optim.layer_decay),
            stacked=parameter_groups.stacked(model),
        )

    def init_state(self, mesh: Mesh) -> TrainState:
        """The state in front of the first step, on the mesh."""
        return jax.jit(self._fresh_state, out_shardings=self._places(mesh))()

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Shapes, dtypes and shardings of the training state."""
        return abstract_on(mesh, self._shapes)

    def compiled_step(self, mesh: Mesh, capacities: tuple[int, ...] | None = None) -> TrainStep:
        """A training step, on so many live rows or on all; takes over the memory of its state.

        Asked for again, as after a rollback, it is the same one.
        """
        if (mesh, capacities) not in self._steps:
            step = make_train_step(
                self.model, self.optimizer, self.schedule, self.recipe, mesh, capacities
            )
            self._steps[mesh, capacities] = self._compiled(step, mesh)
        return self._steps[mesh, capacities]

    def compiled_skip(self, mesh: Mesh) -> SkipStep:
        """A step that is left out; takes over the memory of its state."""
        return self._compiled(make_skip_step(self.recipe), mesh)

    def stepping(
        self,
        mesh: Mesh,
        *,
        teacher: Params | None = None,
        stored: Mapping[str, Any] | None = None,
        compiling: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> StepsOnAllRows | StepsOnLiveRows:
        """What makes the steps of a training.

        Args:
            mesh: of its devices.
            teacher: parameters of one, on the mesh.
            stored: what the checkpoint says that the training goes on from.
            compiling: see `StepsOnLiveRows`.
        """
        if not self.recipe.on_live_rows:
            return StepsOnAllRows(self.compiled_step(mesh), teacher)
        shape, images = self.model.shape, self.images // mesh.size
        sizes = RowSizes.everything(images=images, depth=shape.depth, num_tokens=shape.num_tokens)
        before = stored and RowSizes.of_json(stored)
        if before and before.images == images:
            sizes = before
        step_of = functools.partial(self.compiled_step, mesh)
        return StepsOnLiveRows(step_of, sizes, teacher, compiling=compiling)

    def _compiled(self, step: Callable, mesh: Mesh) -> Any:
        placed = (self._places(mesh), replicated(mesh))
        return jax.jit(step, donate_argnums=0, out_shardings=placed)

    @functools.cached_property
    def _shapes(self) -> TrainState:
        return jax.eval_shape(self._fresh_state)

    def _fresh_state(self) -> TrainState:
        return init_state(self.model, self.optimizer, self.recipe)

    def _places(self, mesh: Mesh) -> Any:
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state(mesh))
