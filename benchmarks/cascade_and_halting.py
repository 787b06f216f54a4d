r"""Stopping early, halting tokens, or both: what each makes of the same work, over several seeds.

    python benchmarks/cascade_and_halting.py --halting runs/avit_digits_{0,1,2} \
        --cascade runs/dvt_digits_{0,1,2} --both runs/dvt_avit_digits_{0,1,2} --output runs/both

Every finished model says what it thinks of all images of the evaluation split once, at several
positions of its dial. The images are then parted at random into two halves, again and again. With
one half a model is set to a budget, as `--mode calibrate` would do it: halting alone to the
position whose cost is nearest, cascades to the thresholds that answer best at that cost. The other
half tells what it really costs and how many answers are right. Both halves take both parts.

Means are over the seeds, and so are their standard errors; images and partings are shared by all.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import log_softmax, softmax

from avit_jax import config as configs
from avit_jax.data.mix import normalise
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.runtime.files import write_json_atomic
from avit_jax.runtime.tables import columns
from avit_jax.types import DialSettings, ExitAnswers
from avit_jax.viz.matplotlib_figure import grid_behind_data, new_figure, write_png
from avit_jax.viz.mean_curves import mean_curve
from avit_jax.viz.palette import OKABE_ITO

POSITIONS = 41  # of the dial of a model with one exit
KINDS = {"halting": "vermilion", "cascade": "blue", "both": "green"}
TITLES = {
    "halting": "halting alone",
    "cascade": "cascade alone",
    "both": "cascade of halting exits",
}
BUDGETS = (0.0025, 0.0035, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03)


class Held(NamedTuple):
    """What a set model makes of images that it was not set on.

    Attributes:
        gmacs: per image, in 1e9.
        top1: share of right answers, 0..1.
        nats: mean cross-entropy.
    """

    gmacs: float
    top1: float
    nats: float


# From images to set a model on, a budget in GMACs, and other images: what it makes of these.
Setting = Callable[[np.ndarray, float, np.ndarray], Held]


def answers_of(experiment: Experiment) -> Callable[[DialSettings], ExitAnswers]:
    """What all exits of a run say about its evaluation split, with settings of its dial."""
    params, model = experiment.weights().params, experiment.model

    @jax.jit
    def step(params: Any, images: jax.Array, settings: DialSettings) -> tuple[jax.Array, jax.Array]:
        output = model.apply(params, normalise(images), settings=settings)
        logits = output.logits[None] if output.exits is None else output.exits
        return logits, model.gmacs_by_exit(output)

    @functools.cache
    def answers(settings: tuple[tuple[str, Any], ...]) -> ExitAnswers:
        logits, gmacs, labels = [], [], []
        for batch in experiment.eval_batches():
            valid = np.asarray(batch["valid"])
            said, cost = step(params, batch["image"], dict(settings))
            logits.append(np.asarray(said)[:, valid])
            gmacs.append(np.asarray(cost, np.float64)[:, valid])
            labels.append(np.asarray(batch["label"])[valid])
        return ExitAnswers(
            np.concatenate(logits, 1), np.concatenate(labels), np.concatenate(gmacs, 1)
        )

    return lambda settings: answers(tuple(sorted(settings.items())))


def one_exit(model: Model, answers: Callable[[DialSettings], ExitAnswers]) -> Setting:
    """Halting alone: the position of its dial whose cost is nearest."""
    dial = model.dial()
    # Close together where a logit decides, far apart where all have decided.
    places = np.sinh(np.linspace(np.arcsinh(dial.low), np.arcsinh(dial.high), POSITIONS))
    said = [answers(dial.settings(float(place))) for place in places]
    costs = np.stack([one.gmacs[-1] for one in said])

    def held(known: np.ndarray, gmacs: float, others: np.ndarray) -> Held:
        chosen = int(np.abs(costs[:, known].mean(1) - gmacs).argmin())
        last = np.full(len(others), -1)
        return _held(part(said[chosen], others), last)

    return held


def several_exits(model: Model, answers: Callable[[DialSettings], ExitAnswers]) -> Setting:
    """A cascade, of what method soever: the first of its fitted families."""

    def held(known: np.ndarray, gmacs: float, others: np.ndarray) -> Held:
        dials = model.fitted_dials(lambda settings: part(answers(settings), known))
        dial = next(iter(dials.values()))
        position = 100 * (gmacs / dial.gmacs(0.0) - 1)
        settings = dial.settings(min(max(position, dial.low), dial.high))
        thresholds, divisors = settings.pop("thresholds"), settings.pop("temperatures")
        said = part(answers(settings | {"threshold_shift": 1e4}), others)
        sure = softmax(said.logits[:-1] / np.array(divisors)[:, None, None], -1).max(-1)
        leaves = sure >= np.array(thresholds)[:, None]
        return _held(said, np.vstack([leaves, np.ones(len(others), bool)]).argmax(0))

    return held


def part(said: ExitAnswers, images: np.ndarray) -> ExitAnswers:
    """What is said about some of the images."""
    return ExitAnswers(said.logits[:, images], said.labels[images], said.gmacs[:, images])


def _held(said: ExitAnswers, exits: np.ndarray) -> Held:
    images = np.arange(len(exits))
    logits = said.logits[exits, images]
    nats = -log_softmax(logits, -1)[images, said.labels]
    right = logits.argmax(-1) == said.labels
    return Held(*(float(one.mean()) for one in (said.gmacs[exits, images], right, nats)))


def curve(run: Setting, budgets: tuple[float, ...], images: int, partings: int) -> np.ndarray:
    """Means over the partings, `[budgets, 3]`, of what `Held` lists."""
    generator, found = np.random.default_rng(0), []
    for _ in range(partings):
        order = generator.permutation(images)
        halves = order[: images // 2], order[images // 2 :]
        for known, others in (halves, halves[::-1]):
            found.append([run(known, gmacs, others) for gmacs in budgets])
    return np.mean(found, 0)


def reachable(costs: np.ndarray, budgets: tuple[float, ...]) -> np.ndarray:
    """Which budgets all seeds could be set to, within a tenth; `costs` is `[seeds, budgets]`."""
    return (np.abs(costs / np.array(budgets) - 1) < 0.1).all(0)


def main() -> None:
    """See the module."""
    options = _options()
    curves: dict[str, np.ndarray] = {}
    for kind in KINDS:
        seeds = []
        for workdir in map(Path, getattr(options, kind)):
            experiment = Experiment(configs.read(workdir / "config.json"), workdir)
            answers, model = answers_of(experiment), experiment.model
            make = one_exit if len(model.stages) == 1 else several_exits
            images = len(answers(model.dial().settings(0.0)).labels)
            seeds.append(curve(make(model, answers), options.budgets, images, options.partings))
            print(f"{kind}: {workdir}, {images} images", file=sys.stderr, flush=True)
        curves[kind] = np.stack(seeds)
    print(columns(*rows(curves, options.budgets)))
    options.output.mkdir(parents=True, exist_ok=True)
    found = {kind: values.tolist() for kind, values in curves.items()}
    record = {"budgets": options.budgets, "columns": Held._fields, "seeds": found}
    write_json_atomic(options.output / "cascade_and_halting.json", record)
    picture = draw(curves, options.budgets, options.output / "cascade_and_halting.png")
    print(f"written: {options.output / 'cascade_and_halting.json'}, {picture}")


def rows(
    curves: Mapping[str, np.ndarray], budgets: tuple[float, ...]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: cost, top-1 and cross-entropy with their standard errors."""
    header = ["GMACs asked"]
    for kind in curves:
        header += [f"{kind}: GMACs", "top-1, %", "nats"]
    cells = [[f"{budget:.4g}"] for budget in budgets]
    for values in curves.values():
        mean, error = values.mean(0), _standard_error(values)
        there = reachable(values[..., 0], budgets)
        for row, one, wide, met in zip(cells, mean, error, there, strict=True):
            texts = (
                f"{one[0]:.4g}",
                f"{100 * one[1]:.2f} ± {100 * wide[1]:.2f}",
                f"{one[2]:.3f} ± {wide[2]:.3f}",
            )
            row += texts if met else ["-"] * 3
    return header, cells


def draw(curves: Mapping[str, np.ndarray], budgets: tuple[float, ...], file: Path) -> Path:
    """Top-1 and cross-entropy over GMACs, a line for each kind and a point for each seed."""
    figure = new_figure(10, 4.4, layout="constrained")
    panels = figure.subplots(1, 2)
    for column, axes, factor, label in zip(
        (1, 2), panels, (100, 1), ("top-1, %", "cross-entropy, nats"), strict=True
    ):
        for kind, values in curves.items():
            there = reachable(values[..., 0], budgets)
            kept = values[:, there]
            mean, error = kept.mean(0), _standard_error(kept)
            mean_curve(
                axes,
                mean[:, 0],
                factor * mean[:, column],
                factor * error[:, column],
                label=f"{TITLES[kind]}, {len(values)} seeds",
                colour=OKABE_ITO[KINDS[kind]],
                seeds=(kept[..., 0], factor * kept[..., column]),
            )
        axes.set(xlabel="GMACs per image", ylabel=label)
        grid_behind_data(axes)
    panels[0].legend(frameon=False, loc="lower right")
    write_png(figure, file, dots_per_inch=150)
    return file


def _standard_error(values: np.ndarray) -> np.ndarray:
    """Of the mean over seeds, the first axis; none is known of a single one."""
    if len(values) == 1:
        return np.full(values.shape[1:], np.nan)
    return values.std(0, ddof=1) / np.sqrt(len(values))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", nargs="+", required=True, help="workdirs, one for a seed")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="GMACs per image")
    parser.add_argument("--partings", type=int, default=10, help="of the images into two halves")
    parser.add_argument("--output", type=Path, default=Path("runs/both"), help="folder")
    options = parser.parse_args()
    options.budgets = tuple(options.budgets)
    return options


if __name__ == "__main__":
    main()
