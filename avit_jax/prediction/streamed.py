"""`--mode predict --stream`: the answers of a stream, as batches of a source in their order."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Generator, Iterator, Sequence

import jax
import numpy as np

from avit_jax.data.augment import Augment
from avit_jax.data.example import BadExample, Source
from avit_jax.data.inference_batches import Loaded, load_ahead
from avit_jax.errors import UserError
from avit_jax.execution.executions import find
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.prediction.answers import NUMBERS, Answered, numbers_of
from avit_jax.streaming.answer import Answer

NAME = "stream"  # as an execution, in what a file of lines remembers


class StreamedAnswerer:
    """What `Answerer` is, by programs that are kept full across batches; always the same ones.

    Args:
        model: that answers.
        params: its parameters, in this process's memory.
        batch_size: images of a segment's programs together, over the devices of this process.
        plan: static sizes; sensible ones where `None`.
        augment: holds the evaluation crop.
    """

    has_sizes = True

    def __init__(
        self,
        model: Model,
        params: Params,
        *,
        batch_size: int,
        plan: Plan | None,
        augment: Augment,
    ):
        self._open = functools.partial(
            model.stream,
            params,
            batch_size=batch_size // jax.local_device_count(),
            max_wait=None,
            read=functools.partial(numbers_of, model, NUMBERS),
            plan=plan,
        )
        self._load = functools.partial(
            load_ahead, batch_size=batch_size, image_size=model.shape.image_size, augment=augment
        )

    def answers(self, source: Source, indices: range) -> Generator[Answered, None, None]:
        """See `Answerer.answers`; compiles when the first is asked for."""
        begun: collections.deque[Loaded] = collections.deque()

        def images(batches: Iterator[Loaded]) -> Iterator[np.ndarray | BadExample]:
            for loaded in batches:
                begun.append(dataclasses.replace(loaded, images=loaded.images[:0].copy()))
                for row, reason in enumerate(loaded.reasons):
                    yield loaded.images[row] if reason is None else BadExample(reason)

        with (
            self._open() as stream,
            contextlib.closing(self._load(source, indices)) as batches,
            contextlib.closing(stream.map(images(batches))) as answers,
        ):
            for first in answers:
                loaded = begun.popleft()
                rest = itertools.islice(answers, len(loaded.reasons) - 1)
                yield loaded, _by_name([first, *rest])


def refuse_inexact(execution: str) -> None:
    """Raises UserError for a config whose execution gives other answers than a stream."""
    if not find(execution).exact:
        raise UserError(
            f"--stream gives the answers of the exact executions, but config.inference.execution "
            f"is {execution!r}: leave one of them out."
        )


def _by_name(answers: Sequence[Answer]) -> dict[str, np.ndarray]:
    """Values of all images under their names; anything for those that have none."""
    known = next((answer.values for answer in answers if answer.values), {})
    return {
        name: np.stack([answer.values.get(name, np.zeros_like(value)) for answer in answers])
        for name, value in known.items()
    }
