"""From a config to the things it describes: model, data, mesh, recipe. Nothing is computed yet."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.data.augment import Augment
from avit_jax.data.bad_examples import BadExamples
from avit_jax.data.mix import Mix
from avit_jax.data.sources import Source, open_source
from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import abstract_on, make_mesh
from avit_jax.training import optimizers
from avit_jax.training.step import Recipe, TrainState, init_state
from avit_jax.training.teacher import make_teacher

Batches = Generator[dict[str, np.ndarray], None, None]


class Experiment:
    """All that follows from a config.

    Attributes:
        config: as given, validated.
        workdir: where the run writes.
        model: method and backbone.
        mesh: over all devices.
        train_source, eval_source: labelled images.
        steps_per_epoch: a real number; epochs need not end with a step.
        total_steps: of the whole training.
        optimization: recipe, schedule and optimiser; only training asks for them, and needs the
          teacher, if there is one.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        """Raises UserError at the first thing that cannot be right."""
        configs.validate(config)
        self.config, self.workdir = config, workdir
        self.model: Model = configs.make_model(config)
        self.mesh: Mesh = make_mesh(**config.mesh)
        self.augment = Augment.from_config(config.data.augment)
        self.train_source = self._open(config.data.train_split)
        self.eval_source = self._open(config.data.eval_split)
        self._check_batch_sizes()
        self.steps_per_epoch = len(self.train_source) / config.train.batch_size
        self.total_steps = config.train.steps or max(
            1, round(config.train.epochs * self.steps_per_epoch)
        )

    @functools.cached_property
    def optimization(self) -> Optimization:
        """See above."""
        return Optimization(self.config, self.model, self.total_steps)

    def steps(self, epochs: float) -> int:
        """Epochs in whole steps, at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def train_batches(self, start: int) -> Batches:
        """This process's rows of every global batch from step `start` on, without end.

        Raises UserError on the way once too many examples are unreadable.
        """
        from avit_jax.data import pipeline  # with Grain, which measuring speed does not need

        batches = pipeline.train_batches(
            self.train_source,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed,
            step=start,
            **self._pipeline_settings(),
        )
        return self._counting_bad(batches, self.train_source)

    def eval_batches(self) -> Batches:
        """This process's rows of the evaluation split, every image once."""
        from avit_jax.data import pipeline

        batches = pipeline.eval_batches(
            self.eval_source,
            batch_size=self.config.eval.batch_size,
            **self._pipeline_settings(),
        )
        return self._counting_bad(batches, self.eval_source)

    def _counting_bad(self, batches: Batches, source: Source) -> Batches:
        tally = BadExamples(max_bad_share=self.config.data.max_bad_share)
        with contextlib.closing(batches):
            for batch in batches:
                tally = tally.add(batch, source)
                yield batch

    def _pipeline_settings(self) -> dict:
        return {
            "image_size": self.model.shape.image_size,
            "augment": self.augment,
            "workers": self.config.data.workers,
            "host": jax.process_index(),
            "hosts": jax.process_count(),
        }

    def _open(self, split: str) -> Source:
        data, classes = self.config.data, self.model.shape.num_classes
        source = open_source(data.name, split=split, data_dir=data.dir)
        if len(source.class_names) != classes:
            raise UserError(
                f"{source.name} has {len(source.class_names)} classes, the model {classes}: "
                f"write --config.model.num_classes {len(source.class_names)}."
            )
        return source

    def _check_batch_sizes(self) -> None:
        devices, train = jax.device_count(), self.config.train
        sizes = {
            "train.batch_size / accumulation": train.batch_size // train.accumulation,
            "eval.batch_size": self.config.eval.batch_size,
        }
        for name, size in sizes.items():
            if size % devices:
                raise UserError(
                    f"config.{name} is {size}, which does not divide among {devices} devices: "
                    f"write a multiple of {devices}."
                )


class Optimization:
    """Recipe, learning-rate schedule and optimiser of a config, and the state they need."""

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
