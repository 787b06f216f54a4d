"""A trained model with its dial: what it costs and answers at any position."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from avit_jax.calibration.exit_answers import answers_of
from avit_jax.calibration.latency import Stopwatch
from avit_jax.calibration.position_search import Probes
from avit_jax.checkpoints.budgets import Budget
from avit_jax.checkpoints.operating_points import OperatingPoint
from avit_jax.data import pipeline
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.evaluation.evaluate import evaluate, make_eval_step
from avit_jax.execution.predictor import Predictor
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.runtime.device_mesh import whole_devices
from avit_jax.types import Dial, DialSettings

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 1024
TIMED_BATCHES = 4


class DialledModel:
    """A model with its dial, and the images to try positions on.

    Args:
        experiment: model and data.
        params: of the model, on the mesh.

    Attributes:
        selection: the calibration images.
        family: name of the dial.
    """

    def __init__(self, experiment: Experiment, params: Params):
        """Measures the least and the highest cost, and fits the dial where it is a fitted one."""
        settings, model = experiment.settings, experiment.model
        self._experiment, self._params = experiment, params
        self._step = make_eval_step(model, experiment.mesh)
        self.selection = experiment.calibration_images(CALIBRATION_IMAGES)
        self._batches = list(
            pipeline.eval_batches(
                self.selection,
                batch_size=whole_devices(settings.eval.batch_size),
                image_size=model.shape.image_size,
                augment=settings.data.augment,
            )
        )
        answers = answers_of(model, params, self._batches, experiment.mesh)
        fitted = model.fitted_dials(answers) or {"dialled": model.dial()}
        (self.family, dial), *others = fitted.items()
        self._turn_to(dial)
        self._others = dict(others)

    def others(self) -> dict[str, DialledModel]:
        """The same model and images with each of the dials that are only shown, by name."""
        found = {}
        for name, dial in self._others.items():
            other = copy.copy(self)
            other.family = name
            other._turn_to(dial)
            found[name] = other
        return found

    def _turn_to(self, dial: Dial) -> None:
        self._dial = dial
        self._probes = Probes(dial.gmacs or self._cost, low=dial.low, high=dial.high)

    def reachable(self, budgets: Iterable[Budget]) -> list[Budget]:
        """Those budgets in GMACs that some position meets."""
        return [budget for budget in budgets if self._meets(self._gmacs(budget))]

    def positions(self, budgets: Sequence[Budget]) -> dict[str, tuple[float, float | None]]:
        """Position of the dial and milliseconds, if they are the budget, by the budget's name.

        Raises:
            UserError: a budget that cannot be met; nothing has been stored then.
        """
        for budget in budgets:
            if budget.unit != "ms" and not self._meets(self._gmacs(budget)):
                raise UserError(self._out_of_reach(budget))
        found: dict[str, tuple[float, float | None]] = {}
        times = [budget for budget in budgets if budget.unit == "ms"]
        if times:
            stopwatch = Stopwatch(self._probes, self._compiled, self._timed_batches())
            found |= {budget.name: stopwatch.meet(budget.amount, budget.name) for budget in times}
        for budget in budgets:
            if budget.unit != "ms":
                found[budget.name] = self._probes.find(self._gmacs(budget)), None
        logger.info("tried %d settings", len(self._probes.costs))
        return found

    def point(
        self, name: str, position: float, budget: Budget | None, milliseconds: float | None
    ) -> OperatingPoint:
        """What a position comes to on the evaluation split."""
        experiment, timed = self._experiment, milliseconds is not None
        results = self._evaluate(position, experiment.eval_batches())
        return OperatingPoint(
            name=name,
            settings=self.settings(position),
            target_gmacs=None if timed or budget is None else self._gmacs(budget),
            gmacs_calibration=self._probes.costs[position],
            milliseconds=milliseconds,
            batch_size=experiment.settings.inference.batch_size if timed else None,
            **{key: results[key] for key in ("gmacs", "gmacs_dense", "top1", "mean_depth")},
        )

    def settings(self, position: float) -> DialSettings:
        """Of the method, at a position of the dial."""
        # In float32, as the compiled program gets them, so that what is stored is what was tried.
        return jax.tree.map(lambda one: float(np.float32(one)), self._dial.settings(position))

    def exits(self) -> tuple[list[float], list[float]] | None:
        """GMACs up to each exit and top-1 there, if all images of the evaluation split stop at it.

        `None` where the dial is not fitted to what exits say.
        """
        if self._dial.gmacs is None:  # then nobody need have gone to the end at its highest
            return None
        results = self._evaluate(self._probes.high, self._experiment.eval_batches())
        return results["exit_gmacs"], results["exit_top1"]

    def _cost(self, position: float) -> float:
        return self._evaluate(position, self._batches)["gmacs"]

    def _evaluate(self, position: float, batches: Iterable) -> dict[str, Any]:
        settings = self.settings(position)

        def step(params: Any, batch: dict) -> dict:
            return self._step(params, batch, settings)

        model, mesh = self._experiment.model, self._experiment.mesh
        return evaluate(step, self._params, batches, mesh, model=model)

    def _gmacs(self, budget: Budget) -> float:
        dense = self._experiment.model.dense_gmacs()
        return budget.amount * (dense if budget.unit == "share" else 1.0)

    def _meets(self, gmacs: float) -> bool:
        # Means over images are rounded: the full cost must not miss the model's own by a bit.
        return self._probes.least * (1 - 1e-6) <= gmacs <= self._probes.most * (1 + 1e-6)

    def _out_of_reach(self, budget: Budget) -> str:
        dense = self._experiment.model.dense_gmacs()
        least, most = self._probes.least, self._probes.most
        return (
            f"the budget {budget.name} cannot be met: this model can be set to cost "
            f"{least:.4g} to {most:.4g} GMACs per image, which is {least / dense:.2f} to "
            f"{most / dense:.2f} of dense."
        )

    def _compiled(self, position: float) -> Predictor:
        experiment = self._experiment
        model: Model = experiment.model
        plan = experiment.plan
        if plan is not None:  # a dearer position wants more rows than its own
            plan = dataclasses.replace(plan, static_rows=None)
        return model.changed(self.settings(position)).compile(
            self._params,
            batch_size=experiment.settings.inference.batch_size,
            execution=experiment.execution,
            plan=plan,
            mesh=experiment.mesh,
        )

    def _timed_batches(self) -> list[np.ndarray]:
        images = np.concatenate([batch["image"][batch["valid"]] for batch in self._batches])
        size = self._experiment.settings.inference.batch_size
        count = min(TIMED_BATCHES, len(images) // size)
        if not count:
            raise UserError(
                f"there are {len(images)} calibration images for a batch of {size}: write a "
                "smaller config.inference.batch_size."
            )
        chosen = np.linspace(0, len(images) - 1, count * size).astype(int)
        return np.split(np.asarray(normalise(images[chosen])), count)
