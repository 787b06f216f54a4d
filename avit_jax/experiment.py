"""What a config describes: model, devices, data and weights, each opened when first asked for.

Every mode comes in through an `Experiment`, and what a mode has no use for is never opened: an
evaluation does not touch the training data, a benchmark on synthetic weights no data at all.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Generator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints import stored_plans
from avit_jax.checkpoints.weights import Weights, chosen_weights
from avit_jax.data.augment import Augment
from avit_jax.data.bad_examples import BadExamples
from avit_jax.data.image_selection import Selection, evenly_spaced, labelled, read_selection
from avit_jax.data.sources import Source, open_source
from avit_jax.errors import UserError
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import make_mesh

logger = logging.getLogger(__name__)

Batches = Generator[dict[str, np.ndarray], None, None]


class Experiment:
    """All that follows from a config.

    Attributes:
        config: as given, validated.
        workdir: where the run writes.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        """Raises UserError for settings that contradict each other; nothing is opened yet."""
        configs.validate(config)
        self.config, self.workdir = config, workdir

    @functools.cached_property
    def model(self) -> Model:
        """Method and backbone."""
        return configs.make_model(self.config)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices of all processes, as `config.mesh` arranges them."""
        return make_mesh(**self.config.mesh)

    @functools.cached_property
    def augment(self) -> Augment:
        """What is done to images, in training and in evaluation."""
        return Augment.from_config(self.config.data.augment)

    @functools.cached_property
    def train_source(self) -> Source:
        """The labelled images of `config.data.train_split`; raises UserError without them."""
        return self._open(self.config.data.train_split)

    @functools.cached_property
    def eval_source(self) -> Source:
        """The labelled images of `config.data.eval_split`; raises UserError without them."""
        return self._open(self.config.data.eval_split)

    @functools.cached_property
    def class_names(self) -> tuple[tuple[str, ...], bool]:
        """Names of the model's classes, and whether they are known.

        Where the data are not at hand they are numbers, and a warning says why, once.
        """
        try:
            return self.eval_source.class_names, True
        except UserError as error:
            logger.warning("classes go by number, for their names are not at hand: %s", error)
            return tuple(f"class {label}" for label in range(self.model.shape.num_classes)), False

    @property
    def plan(self) -> Plan | None:
        """Static sizes for inference that calibration and config chose; `None` without either."""
        return stored_plans.chosen_plan(self.config, self.workdir)

    @property
    def execution(self) -> str:
        """Execution for inference that config or calibration chose."""
        return stored_plans.chosen_execution(self.config, self.workdir)

    def weights(self, mesh: Mesh | None = None) -> Weights:
        """The weights that all modes but training use, see `checkpoints.weights.chosen_weights`.

        Args:
            mesh: to put them on; the experiment's own if unset.

        Raises:
            UserError: there are none, or they do not fit.
        """
        return chosen_weights(self.config, self.workdir, self.model, mesh or self.mesh)

    @property
    def steps_per_epoch(self) -> float:
        """Not always whole: epochs need not end with a step."""
        return len(self.train_source) / self.config.train.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, over all its parts."""
        return self.config.train.steps or self.steps(self.config.train.epochs)

    def steps(self, epochs: float) -> int:
        """Epochs in whole steps, at least one."""
        return max(1, round(epochs * self.steps_per_epoch))

    def train_batches(self, start: int) -> Batches:
        """This process's rows of every global batch from step `start` on, without end.

        Raises UserError on the way once too many examples are unreadable.
        """
        from avit_jax.data import pipeline  # with Grain, which measuring speed does not need

        self.refuse_uneven_train_batch()
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

        self.refuse_uneven_eval_batch()
        batches = pipeline.eval_batches(
            self.eval_source,
            batch_size=self.config.eval.batch_size,
            **self._pipeline_settings(),
        )
        return self._counting_bad(batches, self.eval_source)

    def eval_images(self, limit: int) -> Selection:
        """At most so many images of the evaluation split, evenly spaced."""
        return labelled(
            self.eval_source,
            evenly_spaced(len(self.eval_source), limit),
            split=self.config.data.eval_split,
        )

    def train_images(self, limit: int) -> Selection:
        """At most so many images of the training split, evenly spaced."""
        return labelled(
            self.train_source,
            evenly_spaced(len(self.train_source), limit),
            split=self.config.data.train_split,
        )

    def measured_images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Evaluation images to measure costs and speed on, from the first to the last of the split.

        Returns:
            Images uint8 `[n <= count, S, S, 3]` and their labels `[n]`.

        Raises:
            UserError: none can be read.
        """
        total = len(self.eval_source)
        chosen = np.linspace(0, total - 1, min(count, total)).astype(int).tolist()
        selection = labelled(self.eval_source, chosen, split=self.config.data.eval_split)
        return read_selection(selection, size=self.model.shape.image_size, augment=self.augment)

    def refuse_uneven_train_batch(self) -> None:
        """Raises UserError where the microbatches of a training do not divide among devices."""
        train = self.config.train
        _refuse_uneven("train.batch_size / accumulation", train.batch_size // train.accumulation)

    def refuse_uneven_eval_batch(self) -> None:
        """Raises UserError where the batches of an evaluation do not divide among devices."""
        _refuse_uneven("eval.batch_size", self.config.eval.batch_size)

    def _open(self, split: str) -> Source:
        data, classes = self.config.data, self.model.shape.num_classes
        source = open_source(data.name, split=split, data_dir=data.dir)
        if len(source.class_names) != classes:
            raise UserError(
                f"{source.name} has {len(source.class_names)} classes, the model {classes}: write "
                f"--config.model.num_classes {len(source.class_names)} to train a model for them, "
                "or the data that this one was trained on."
            )
        return source

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


def _refuse_uneven(name: str, size: int) -> None:
    devices = jax.device_count()
    if size % devices:
        raise UserError(
            f"config.{name} is {size}, which does not divide among {devices} devices: "
            f"write a multiple of {devices}."
        )
