"""What is raced: a model with weights, the images of a batch, and images to compare answers on."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import numpy as np

from avit_jax.benchmark import profiles
from avit_jax.checkpoints import stored_plans
from avit_jax.config.inference import Benchmark
from avit_jax.data.mix import normalise
from avit_jax.errors import UserError
from avit_jax.execution.plan import Plan
from avit_jax.experiment import Experiment
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params
from avit_jax.runtime import cpu_devices
from avit_jax.runtime.device_mesh import make_mesh

ANSWERS = 256  # images of a trained run on which answers are compared, where it has as many


@dataclasses.dataclass(frozen=True)
class Case:
    """One setting to race in.

    Attributes:
        name: of the profile.
        model: raced.
        params: its weights.
        images: `[n, H, W, 3]` normalised, on which answers are compared.
        timed: indices `[batch]` into `images` of the batch that is raced on.
        plan: static sizes.
        labels: `[n]` true classes, where there are any.
        shared: static sizes by other numbers of devices that the batch is also raced on.
    """

    name: str
    model: Model
    params: Params
    images: np.ndarray
    timed: np.ndarray
    plan: Plan
    labels: np.ndarray | None = None
    shared: dict[int, Plan] = dataclasses.field(default_factory=dict)

    @property
    def batch(self) -> np.ndarray:
        """The images that are raced on."""
        return self.images[self.timed]


def cases(experiment: Experiment, settings: Benchmark) -> Iterator[Case]:
    """Every combination of image size, dtype, batch size and profile.

    Args:
        experiment: that the cases are of.
        settings: with every choice made, see `scale.completed`.
    """
    shape = experiment.model.shape
    sizes = settings.image_sizes or (shape.image_size,)
    dtypes = settings.dtypes or (shape.dtype,)
    for size, dtype, batch_size in itertools.product(sizes, dtypes, settings.batch_sizes or ()):
        if batch_size % jax.device_count():
            print(f"batch {batch_size} left out: not a multiple of {jax.device_count()} devices")
            continue
        case = experiment.with_sizes(image_size=size, dtype=dtype, batch_size=batch_size)
        model = case.model
        plan = case.plan or model.default_plan(max(1, batch_size // jax.device_count()))
        names = settings.profiles or profiles.sensible(model)
        if not settings.profiles and names == ("real",):
            print(
                f"method {model.name} has no synthetic profiles for this model: measured with this "
                "run's own weights and images (profile real)"
            )
        for name in names:
            if name == "real":
                made = real_case(case, plan)
            else:
                made = scripted_case(name, model, plan, batch_size, seed=experiment.settings.seed)
            shared = {devices: plan_on(devices, made, case) for devices in also_on(batch_size)}
            yield dataclasses.replace(made, shared=shared)


def also_on(batch_size: int) -> tuple[int, ...]:
    """Numbers of CPU devices that a batch is raced on beside those of this process.

    Where nobody has said how many there are, that is the number on which predictions are made.
    """
    if jax.default_backend() != "cpu" or not cpu_devices.is_left_open():
        return ()
    devices = cpu_devices.largest_share(batch_size, cpu_devices.cores_for_jax())
    return (devices,) if devices > jax.device_count() else ()


def plan_on(devices: int, made: Case, experiment: Experiment) -> Plan:
    """Static sizes on another number of devices: calibrated there, or else sensible ones."""
    settings, model = experiment.settings.inference, made.model
    plan = stored_plans.chosen_plan(
        settings, model, experiment.workdir, name=experiment.name, devices=devices
    ) or model.default_plan(settings.batch_size // devices)
    return plan if made.name == "real" else dataclasses.replace(plan, static_rows=None)


def scripted_case(name: str, model: Model, plan: Plan, batch_size: int, *, seed: int) -> Case:
    """Weights and a batch of images that skip as much as a synthetic profile says."""
    params, images = profiles.script(model, name, batch_size, seed=seed)
    plan = dataclasses.replace(plan, static_rows=None)  # those of a run are not for these weights
    return Case(name, model, params, images, np.arange(batch_size), plan)


def real_case(experiment: Experiment, plan: Plan) -> Case:
    """This run's weights on images of its evaluation split, drawn from all of it."""
    params = experiment.weights(make_mesh()).params
    batch_size = experiment.settings.inference.batch_size
    pixels, labels = experiment.measured_images(max(batch_size, ANSWERS))
    images = np.asarray(normalise(pixels))
    if len(images) < batch_size:
        raise UserError(
            f"the evaluation split gives {len(images)} images for a batch of {batch_size}: "
            "write smaller config.benchmark.batch_sizes."
        )
    timed = np.linspace(0, len(images) - 1, batch_size).astype(int)
    return Case("real", experiment.model, params, images, timed, plan, labels)
