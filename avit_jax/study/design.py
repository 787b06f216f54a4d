"""What a study file says: which settings are varied, how often, and at which cost they compare."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints.budgets import Budget, parse_budget
from avit_jax.config import by_name
from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.study.cells import Cell, Setting, name_of, options_of, refuse_same_names

RECIPE = "config"  # the key under which an option names another recipe than the study's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of trainings, each of which is a cell.

    Attributes:
        config: the recipe of all cells, by name with its variant ("avit_digits:ci"), or a file.
        settings: other settings of all cells, under the keys of the command line.
        axes: what is varied, every value with every value of the other axes. A key and its values
          (`{"method.prior": ("gaussian", "laplace")}`), or a name and the settings of each option
          by what the tables call it (`{"rule": {"a-vit": {}, "late": {"method.eps": 0.2}}}`). The
          setting "config" of an option is another recipe.
        seeds: each setting is trained once with each.
        folds: settings of each part of a cross-validation, such as `recipes.folds_of_digits(7)`;
          the cells of all folds count as one training whose evaluation images are those of all.
        folds_in_turn: each seed is trained with one fold only, the first with the first and so on
          round, and every cell is a training. As cheap as no folds, and all images are evaluated;
          figures of single settings then vary with the fold, differences in pairs do not.
        budgets: costs that every trained cell is set to by its dial, so that they compare at equal
          GMACs: shares of what the study's own `config` costs with nothing skipped (0.6), or
          GMACs per image ("0.008gmacs").
        dial_on_evaluation: the dial is set by what the evaluation images cost, so that these costs
          are equal; no label is read. Otherwise by training images, or those of
          `config.data.calibration_split`, as it is in use; evaluation images then cost some percent
          more or less, which moves accuracies as much as what is compared. Cascades, which fit
          their dials to labels, take no other way.
        baselines: for some axes, the option that the others are compared with, in pairs of cells
          that are alike in all else, seed and fold among it (`{"method.prior": "gaussian"}`).
        is_debug: whether every cell is cut down to a few steps on few images, see `debug`.
    """

    config: str
    axes: Mapping[str, Sequence[Any] | Mapping[str, Any]]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    folds: Sequence[Mapping[str, Any]] = ()
    folds_in_turn: bool = False
    budgets: Sequence[float | str] = ()
    dial_on_evaluation: bool = True
    baselines: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_debug: bool = False

    def __post_init__(self):
        """Raises UserError for an empty grid, repeated seeds, and baselines that are no option."""
        empty = [name for name, values in self.axes.items() if not len(values)]
        if not self.axes or empty or not len(self.seeds):
            what = f"axis {empty[0]!r} has no value" if empty else "it has no axis or no seed"
            raise UserError(
                f"the study's grid is empty, for {what}: write axes such as "
                '{"method.prior": ("gaussian", "laplace")} and seeds such as range(3).'
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"the study's seeds are {list(self.seeds)}: write each of them once.")
        for axis, label in self.baselines.items():
            known = [one.label for one in self.options.get(axis, ())]
            if str(label) not in known:
                said = f"write one of {', '.join(known)}" if known else "there is no such axis"
                raise UserError(f"the baseline of {axis!r} is {label!r}: {said}.")

    @property
    def options(self) -> dict[str, list[Setting]]:
        """The options of every axis, by its name."""
        return {name: options_of(name, values) for name, values in self.axes.items()}

    def debug(self) -> Study:
        """The first two options of the first axis on few images for a few steps: seconds a cell."""
        name, first = next(iter(self.options.items()))
        chosen = {one.label: one.settings for one in first[:2]}
        kept = {
            axis: label
            for axis, label in self.baselines.items()
            if axis == name and str(label) in chosen
        }
        return dataclasses.replace(
            self,
            axes={name: chosen},
            seeds=tuple(self.seeds)[:1],
            folds=(),
            budgets=tuple(self.budgets)[:1],
            baselines=kept,
            is_debug=True,
        )

    def recipe(self, settings: Mapping[str, Any]) -> ConfigDict:
        """The config of the recipe, with the study's settings and others in force.

        Raises:
            UserError: a key that no config has, or a value of another type.
        """
        chosen = dict(settings)
        config = by_name.load(chosen.pop(RECIPE, self.config))
        if self.is_debug:
            config = configs.debug(config)
        configs.change(config, self.settings if not self.is_debug else _short(self.settings))
        for key in chosen:
            if key == "model.name":
                raise UserError(
                    f"an axis changes 'model.name', which would only rename the model: write "
                    f"another recipe under the key {RECIPE!r}."
                )
        configs.change(config, chosen)
        return config.copy_and_resolve_references()

    def cells(self) -> list[Cell]:
        """All cells, each with a config that makes a model; all settings of one seed come first.

        So a study that has not finished compares as many pairs as it can.

        Raises:
            UserError: a key or value that no config has, settings that contradict each other, or
                two cells of one name.
        """
        found = []
        grid = list(itertools.product(*self.options.values()))
        for (seed, fold), chosen in itertools.product(self.repetitions(), grid):
            labels = dict(zip(self.axes, (one.label for one in chosen), strict=True))
            settings = {key: value for one in chosen for key, value in one.settings.items()}
            settings |= {} if fold is None else self.folds[fold]
            name = name_of(labels, seed, fold)
            try:
                config = self.recipe(settings | {"seed": seed})
                configs.Settings.of(config)
                self._choose_calibration_images(config, configs.make_model(config))
            except UserError as error:
                raise UserError(f"cell {name}: {error}") from error
            found.append(Cell(name, labels, seed, fold, config))
        refuse_same_names(found)
        return found

    def _choose_calibration_images(self, config: ConfigDict, model: Model) -> None:
        if not self.dial_on_evaluation or config.data.calibration_split is not None:
            return
        if len(model.stages) > 1 and self.budgets:
            raise UserError(
                "a cascade fits its dial to labels, which those of the evaluation images may not "
                "be: write dial_on_evaluation=False in the study, or no budgets."
            )
        config.data.calibration_split = config.data.eval_split

    def repetitions(self) -> list[tuple[int, int | None]]:
        """Seeds and folds that each setting is trained with; `None` without folds."""
        seeds = [int(seed) for seed in self.seeds]
        if not self.folds:
            return [(seed, None) for seed in seeds]
        if self.folds_in_turn:
            return [(seed, n % len(self.folds)) for n, seed in enumerate(seeds)]
        return [(seed, fold) for seed in seeds for fold in range(len(self.folds))]

    @property
    def folds_together(self) -> int:
        """Folds whose cells make one training; 0 where each cell is one."""
        return 0 if self.folds_in_turn else len(self.folds)

    def budgets_in_gmacs(self) -> dict[str, Budget]:
        """The budgets as the same GMACs for all cells, by what the tables call them.

        Raises:
            UserError: one that is no budget, or a time.
        """
        dense = configs.make_model(self.recipe({})).dense_gmacs()
        found = {}
        for written in self.budgets:
            budget = parse_budget(str(written))
            if budget.unit == "ms":
                raise UserError(
                    f"the budget {written!r} is a time: write a share of the dense GMACs such as "
                    "0.6, or GMACs per image such as '0.008gmacs', for cells compare by these."
                )
            gmacs = budget.amount * (dense if budget.unit == "share" else 1.0)
            equal = Budget(float(f"{gmacs:.4g}"), "gmacs")
            found[equal.name] = equal
        return found


def _short(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that do not undo what makes a debug variant short."""
    return {key: value for key, value in settings.items() if key.partition(".")[0] != "train"}
