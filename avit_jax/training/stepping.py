"""Steps as the loop makes them, one after the other: on all rows, or on those of live tokens.

A step on live rows may find too few and is then made again with more. The loop does not wait for
that answer: it comes one step later, and the step dispatched meanwhile has left the state as it
was (`step.make_train_step`), so both are made again in their order.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.models.functional import Params
from avit_jax.training.row_sizes import RowSizes
from avit_jax.training.step import TrainState, TrainStep

logger = logging.getLogger(__name__)

Averages = dict[str, Array]
Batch = Mapping[str, Array]


class StepsOnAllRows:
    """Steps that run every token."""

    def __init__(self, step: TrainStep, teacher: Params | None):
        self._step, self._teacher = step, teacher

    def advance(self, state: TrainState, number: int, batch: Batch) -> tuple[TrainState, Averages]:
        """Make step `number`, counted from 0."""
        return self._step(state, batch, self._teacher)

    def settle(self, state: TrainState, averages: Averages) -> tuple[TrainState, Averages]:
        """State and averages once it is sure that all steps were made."""
        return state, averages

    def fit(self, state: TrainState) -> TrainState:
        """At an evaluation: choose sizes for what comes."""
        return state

    def stored(self) -> dict[str, Any] | None:
        """For the checkpoint."""
        return None


class _InFlight(NamedTuple):
    number: int
    batch: Batch
    fits: Array


class StepsOnLiveRows:
    """Steps that leave out tokens that have halted."""

    def __init__(
        self,
        step_of: Callable[[tuple[int, ...]], TrainStep],
        sizes: RowSizes,
        teacher: Params | None,
        *,
        compiling: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        """Make steps of `sizes`, which `step_of` jits.

        Args:
            step_of: a step for so many rows of each layer.
            sizes: there are.
            teacher: parameters of one, on the mesh.
            compiling: entered while a step is compiled, whose time is not that of training.
        """
        self._step_of, self._teacher, self.sizes = step_of, teacher, sizes
        self._compiling = compiling
        self._steps: dict[tuple[int, ...], TrainStep] = {}
        self._in_flight: list[_InFlight] = []

    def advance(self, state: TrainState, number: int, batch: Batch) -> tuple[TrainState, Averages]:
        """As `StepsOnAllRows.advance`; the step before it is sure to have been made."""
        state, averages = self._make(state, number, batch)
        return self._settle(state, averages, leave=1)

    def settle(self, state: TrainState, averages: Averages) -> tuple[TrainState, Averages]:
        """As `StepsOnAllRows.settle`; waits for the device."""
        return self._settle(state, averages, leave=0)

    def fit(self, state: TrainState) -> TrainState:
        """As `StepsOnAllRows.fit`; the most live rows are counted anew from here."""
        before = self.sizes
        self.sizes = before.fitted(np.asarray(state.most_live_rows))
        if self.sizes != before:
            logger.info("steps run %.0f %% of all rows from here on", 100 * self.sizes.share)
        return state.replace(most_live_rows=jnp.zeros_like(state.most_live_rows))

    def stored(self) -> dict[str, Any]:
        """As `StepsOnAllRows.stored`."""
        return self.sizes.to_json()

    def _make(self, state: TrainState, number: int, batch: Batch) -> tuple[TrainState, Averages]:
        capacities, context = self.sizes.capacities, contextlib.nullcontext()
        if capacities not in self._steps:
            self._steps[capacities], context = self._step_of(capacities), self._compiling()
        with context:
            step = self._steps[capacities]
            state, averages = step(state, batch, self._teacher, np.int32(number))
        fits = averages.pop("fits")
        fits.copy_to_host_async()
        self._in_flight.append(_InFlight(number, batch, fits))
        return state, averages

    def _settle(
        self, state: TrainState, averages: Averages, *, leave: int
    ) -> tuple[TrainState, Averages]:
        """Make sure of all steps but the last `leave`."""
        while len(self._in_flight) > leave:
            if self._in_flight[0].fits:
                del self._in_flight[0]
                continue
            self.sizes = self.sizes.larger()
            again, self._in_flight = self._in_flight, []
            logger.info(
                "step %d had more live tokens than rows: it is made again, and steps run %.0f %% "
                "of all rows until the next evaluation",
                again[0].number + 1,
                100 * self.sizes.share,
            )
            for number, batch, _ in again:
                state, averages = self._make(state, number, batch)
        return state, averages
