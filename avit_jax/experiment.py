"""What a config describes: model, devices, data and weights, each opened when first asked for.

Every mode comes in through an `Experiment`, and what a mode has no use for is never opened: an
evaluation does not touch the training data, a benchmark on synthetic weights no data at all.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Generator, Iterable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints import description, stored_plans
from avit_jax.checkpoints.weights import Weights, initial_weights, weights_of_run
from avit_jax.checkpoints.workdir import differences_in_use, nothing_in
from avit_jax.config.defaults import MOST_STEPS
from avit_jax.data import imagenet_variants
from avit_jax.data.bad_examples import BadExamples
from avit_jax.data.image_selection import Selection, evenly_spaced, labelled, read_selection
from avit_jax.data.sources import Source, open_source
from avit_jax.errors import UserError
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import make_mesh, refuse_uneven, whole_devices

logger = logging.getLogger(__name__)

Batches = Generator[dict[str, np.ndarray], None, None]


class Experiment:
    """All that follows from a config.

    Attributes:
        config: as given, for what is written down; what runs reads `settings`.
        workdir: where the run writes.
        settings: what the config says, but for `model`.
        name: of the model.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        """Raises UserError for settings that contradict each other; nothing is opened yet."""
        self.config, self.workdir = config, workdir
        self.settings, self.name = configs.Settings.of(config), config.model.name

    def with_sizes(self, *, image_size: int, dtype: str, batch_size: int) -> Experiment:
        """The same experiment at other sizes of model and inference."""
        changed = ConfigDict(self.config.to_dict())
        changed.model.update(image_size=image_size, dtype=dtype)
        changed.inference.batch_size = batch_size
        return Experiment(changed, self.workdir)

    @functools.cached_property
    def model(self) -> Model:
        """Method and backbone."""
        return configs.make_model(self.config)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """All devices of all processes, as `config.mesh` arranges them."""
        return make_mesh(self.settings.mesh.data, self.settings.mesh.fsdp)

    @functools.cached_property
    def train_source(self) -> Source:
        """The labelled images of `config.data.train_split`; raises UserError without them."""
        return imagenet_variants.to_train_on(self._open(self.settings.data.train_split))

    @functools.cached_property
    def eval_source(self) -> Source:
        """The labelled images of `config.data.eval_split`; raises UserError without them."""
        data = self.settings.data
        return imagenet_variants.to_evaluate_on(self._open(data.eval_split), data.augment)

    @functools.cached_property
    def class_names(self) -> tuple[tuple[str, ...], bool]:
        """Names of the model's classes, and whether they are known.

        A run keeps those of its training data. Where it has none, and the data are not at hand,
        they are numbers, and a warning says why, once.
        """
        if self._kept_class_names is not None:
            return self._kept_class_names, True
        try:
            return self.eval_source.class_names, True
        except UserError as error:
            logger.warning("classes go by number, for their names are not at hand: %s", error)
            return description.numbers_for_names(self.model.shape.num_classes), False

    @functools.cached_property
    def _kept_class_names(self) -> tuple[str, ...] | None:
        kept = description.kept_class_names(self.workdir)
        return kept if kept and len(kept) == self.model.shape.num_classes else None

    def describe(self, place: Path) -> None:
        """Write down what images and answers are, in a workdir or beside a weight file."""
        names = self.class_names[0] if self.class_names[1] else None
        description.write(place, self.config, self.model.shape, names)

    @functools.cached_property
    def plan(self) -> Plan | None:
        """Static sizes for inference that calibration and config chose; `None` without either."""
        return stored_plans.chosen_plan(
            self.settings.inference, self.model, self.workdir, name=self.name
        )

    @functools.cached_property
    def execution(self) -> str:
        """Execution for inference that config or calibration chose."""
        return stored_plans.chosen_execution(self.settings.inference, self.model, self.workdir)

    def weights(self, mesh: Mesh | None = None) -> Weights:
        """The weights that all modes but training use, under `config.eval.weights`.

        They are those of the newest checkpoint in the workdir, or, as long as there is none, what a
        training there would start from. So the command that fine-tuned a file's weights evaluates
        the result of it, and the same command before any training evaluates the file.

        Args:
            mesh: to put them on; the experiment's own if unset.

        Raises:
            UserError: there are none, they do not fit, or the run was trained with other settings.
        """
        mesh, weights, changes = mesh or self.mesh, self.settings.eval.weights, self.changes
        found = weights_of_run(self.workdir, self.model, mesh, weights=weights)
        if found is None:
            found = initial_weights(self.settings.init, self.model, mesh, weights=weights)
        else:
            said = "; ".join(changes[k] for k in changes if k.startswith(("method.", "model.")))
            if said:
                logger.info("used otherwise than trained in %s: %s", self.workdir, said)
        if found is None:
            raise nothing_in(self.workdir)
        return found

    @functools.cached_property
    def changes(self) -> dict[str, str]:
        """What the config says otherwise than that of the trained run in the workdir, for people.

        Raises:
            UserError: something that determines parameters.
        """
        return differences_in_use(self.config, self.workdir)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, over all its parts."""
        total = self.settings.train.steps or self.steps(self.settings.train.epochs)
        if total > MOST_STEPS:
            raise UserError(
                f"config.train.epochs {self.settings.train.epochs:g} are {total:,} steps: write a "
                f"number that comes to at most {MOST_STEPS:,}."
            )
        return total

    def steps(self, epochs: float) -> int:
        """Epochs, which need not end with a step, in whole steps, at least one."""
        return max(1, round(epochs * len(self.train_source) / self.settings.train.batch_size))

    def train_batches(self, start: int) -> Batches:
        """This process's rows of every global batch from step `start` on, without end.

        Raises UserError on the way once too many examples are unreadable.
        """
        from avit_jax.data import pipeline  # with Grain, which measuring speed does not need

        self.refuse_uneven_train_batch()
        sizes = {"batch_size": self.settings.train.batch_size, **self._pipeline_settings()}
        batches = pipeline.train_batches(
            self.train_source,
            seed=self.settings.seed,
            step=start,
            repeats=self.settings.data.repeats,
            **sizes,
        )
        return self._counting_bad(batches, self.train_source)

    def eval_batches(self) -> Batches:
        """This process's rows of the evaluation split, every image once."""
        return self._counting_bad(iter(self._evaluation), self.eval_source)

    @functools.cached_property
    def _evaluation(self) -> Iterable[dict[str, np.ndarray]]:
        from avit_jax.data.eval_cache import EvalBatches

        size = whole_devices(self.settings.eval.batch_size)  # what only fills up weighs nothing
        settings = {"batch_size": size, **self._pipeline_settings()}
        return EvalBatches(self.eval_source, self.settings.data.eval_cache, settings)

    def eval_images(self, limit: int) -> Selection:
        """At most so many images of the evaluation split, evenly spaced."""
        return _some(self.eval_source, limit, split=self.settings.data.eval_split)

    def calibration_images(self, limit: int) -> Selection:
        """At most so many images to try settings on, evenly spaced."""
        split = self.settings.data.tried_on
        return _some(self._open(split), limit, split=split)

    def measured_images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Evaluation images to measure costs and speed on, from the first to the last of the split.

        Returns:
            Images uint8 `[n <= count, S, S, 3]` and their labels `[n]`.

        Raises:
            UserError: none can be read.
        """
        total = len(self.eval_source)
        chosen = np.linspace(0, total - 1, min(count, total)).astype(int).tolist()
        selection = labelled(self.eval_source, chosen, split=self.settings.data.eval_split)
        size, augment = self.model.shape.image_size, self.settings.data.augment
        return read_selection(selection, size=size, augment=augment)

    def refuse_uneven_train_batch(self) -> None:
        """Raises UserError where the microbatches of a training do not divide among devices."""
        train = self.settings.train
        refuse_uneven("train.batch_size / accumulation", train.batch_size // train.accumulation)

    def refuse_uneven_eval_batch(self) -> None:
        """Raises UserError where the batches of an evaluation do not divide among devices."""
        refuse_uneven("eval.batch_size", self.settings.eval.batch_size)

    def _open(self, split: str) -> Source:
        data, classes = self.settings.data, self.model.shape.num_classes
        source = open_source(data.name, split=split, data_dir=data.dir, holdout=data.held_out)
        if len(source.class_names) != classes:
            raise UserError(
                f"{source.name} has {len(source.class_names)} classes, the model {classes}: write "
                f"--config.model.num_classes {len(source.class_names)} to train a model for them, "
                "or the data that this one was trained on."
            )
        description.warn_of_other_names(source, self._kept_class_names)
        return source

    def _counting_bad(self, batches: Batches, source: Source) -> Batches:
        tally = BadExamples(max_bad_share=self.settings.data.max_bad_share)
        with contextlib.closing(batches):
            for batch in batches:
                tally = tally.add(batch, source)
                yield batch

    def _pipeline_settings(self) -> dict:
        return {
            "image_size": self.model.shape.image_size,
            "augment": self.settings.data.augment,
            "workers": self.settings.data.workers,
            "threads": self.settings.data.threads,
            "host": jax.process_index(),
            "hosts": jax.process_count(),
        }


def _some(source: Source, limit: int, *, split: str) -> Selection:
    return labelled(source, evenly_spaced(len(source), limit), split=split)
