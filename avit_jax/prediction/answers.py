"""A compiled model from images to what it says of each: the command line and Python share it."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Generator, Sequence

import jax
import numpy as np
from jax import Array

from avit_jax.data.augment import Augment
from avit_jax.data.example import Source
from avit_jax.data.inference_batches import Loaded, load_ahead
from avit_jax.data.mix import normalise
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.methods.per_image import per_image
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import batch_sharding, make_mesh
from avit_jax.types import Output

logger = logging.getLogger(__name__)

# Of `PerImage`: one number for an image each; what a model does not have is left out.
NUMBERS = ("class_index", "confidence", "depth", "gmacs", "dropped", "exit")

Answered = tuple[Loaded, dict[str, np.ndarray]]


class Answerer:
    """Answers on the devices of this process, always by the same program.

    Args:
        model: that answers.
        params: its parameters, in this process's memory.
        batch_size: images that go through together, see `local_batch_size`.
        execution: how, by name.
        plan: static sizes; sensible ones where `None`.
        augment: holds the evaluation crop.
        names: of `PerImage`, what is wanted of each image.
    """

    def __init__(
        self,
        model: Model,
        params: Params,
        *,
        batch_size: int,
        execution: str,
        plan: Plan | None,
        augment: Augment,
        names: Sequence[str] = NUMBERS,
    ):
        """Compiles; raises UserError for an execution or sizes that do not fit the model."""
        mesh = make_mesh(devices=jax.local_devices())
        self._predictor = model.compile(
            params, batch_size=batch_size, execution=execution, plan=plan, mesh=mesh
        )
        self._load = functools.partial(
            load_ahead, batch_size=batch_size, image_size=model.shape.image_size, augment=augment
        )
        self._place = batch_sharding(mesh)
        self._prepare = jax.jit(normalise, out_shardings=self._place)
        self._read = jax.jit(functools.partial(numbers_of, model, tuple(names)))

    @property
    def has_sizes(self) -> bool:
        """Whether the program has its sizes, or takes those of the first batch."""
        return self._predictor.has_sizes

    def measure(self, source: Source, indices: range) -> None:
        """Take the sizes of the first batch of these images that is fit for it."""
        with contextlib.closing(self._load(source, indices)) as batches:
            any(self._predictor.measure(*self._put(loaded)) for loaded in batches)

    def answers(self, source: Source, indices: range) -> Generator[Answered, None, None]:
        """Yield each batch with what the model says about it, in order.

        The device works on the next batches while the caller uses the last one; whether everything
        found its place in that one is read only then. An image that cannot be used costs nothing
        when compact or static.

        Args:
            source: of the images.
            indices: of those that are wanted, consecutive.

        Yields:
            The batch, and the values of its rows under their names, `[B, ...]`.
        """
        predictor = self._predictor
        batches_before, overflows_before = predictor.batches, predictor.overflows
        pending: list[tuple[Loaded, Output, tuple[Array, Array], dict[str, Array]]] = []

        def finished() -> Answered:
            loaded, output, arguments, answer = pending.pop(0)
            final = predictor.finish(output, *arguments)
            return loaded, jax.device_get(answer if final is output else self._read(final))

        with contextlib.closing(self._load(source, indices)) as batches:
            for loaded in batches:
                arguments = self._put(loaded)
                output = predictor.start(*arguments)
                answer = self._read(output)
                jax.tree.map(lambda leaf: leaf.copy_to_host_async(), answer)
                pending.append((loaded, output, arguments, answer))
                if len(pending) > 1:
                    yield finished()
            while pending:
                yield finished()
        overflows = predictor.overflows - overflows_before
        if overflows:
            logger.info(
                "%d of %d batches did not fit into %s execution: %s execution answered these",
                overflows,
                predictor.batches - batches_before,
                predictor.execution.name,
                predictor.execution.fallback.name,
            )

    def _put(self, loaded: Loaded) -> tuple[Array, Array]:
        """A batch as the arguments of a program: its images, and which of them are usable."""
        usable = np.zeros(len(loaded.images), bool)
        usable[: len(loaded.reasons)] = [reason is None for reason in loaded.reasons]
        images = self._prepare(jax.device_put(loaded.images, self._place))
        return images, jax.device_put(usable, self._place)


def no_answers() -> Generator[Answered, None, None]:
    """Yield nothing: where every line is there already."""
    yield from ()


def local_batch_size(batch_size: int, images: int) -> int:
    """Images of a batch of one process with `images` images: whole devices, no more than needed."""
    devices = jax.local_device_count()
    wanted = min(math.ceil(batch_size / jax.process_count()), max(images, 1))
    return math.ceil(wanted / devices) * devices


def numbers_of(model: Model, names: tuple[str, ...], output: Output) -> dict[str, Array]:
    """What `per_image` says under these names, `[B, ...]`, as far as the model has it."""
    said = per_image(model, output)
    values = {name: getattr(said, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}
