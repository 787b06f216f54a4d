"""`--mode forecast`: a run compiled for a machine that is not there, and what that says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avit_jax.errors import UserError
from avit_jax.experiment import Experiment
from avit_jax.forecast.figures import figures
from avit_jax.forecast.largest_batch import largest_batch
from avit_jax.forecast.machines import Machine, machine_of
from avit_jax.forecast.memory import bytes_on_device, held_between_steps
from avit_jax.forecast.programs import Program, Training, compiled, evaluation, prediction
from avit_jax.forecast.report import print_forecast
from avit_jax.runtime.device_mesh import abstract_on, make_mesh
from avit_jax.runtime.files import write_json_atomic

logger = logging.getLogger(__name__)

FILE = "forecast.json"
FULL = "RESOURCE_EXHAUSTED"  # what compilers say of a program that has no room


def forecast_run(config: ConfigDict, workdir: Path) -> Path:
    """Compile the programs of a run for `config.forecast.machine`; print and write what they say.

    Args:
        config: of the run; neither its data nor any weights are opened.
        workdir: where `forecast.json` is written.

    Returns:
        The JSON file.

    Raises:
        UserError: no such machine, its compiler is not installed, or a mesh or batch that its
            devices cannot share.
    """
    experiment = Experiment(config, workdir)
    machine = machine_of(experiment.settings.forecast.machine)
    found = forecast(experiment, machine)
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / FILE
    write_json_atomic(file, found)
    print_forecast(found)
    print(f"\nwritten: {file}")
    return file


def forecast(experiment: Experiment, machine: Machine) -> dict[str, Any]:
    """All figures of a run on a machine, as they stand in `forecast.json`."""
    settings = experiment.settings
    chosen, train = settings.forecast, settings.train
    mesh = make_mesh(settings.mesh.data, settings.mesh.fsdp, devices=machine.devices)
    unit = mesh.size * train.accumulation
    if train.batch_size % unit:
        raise UserError(
            f"config.train.batch_size is {train.batch_size}, which does not divide among "
            f"{mesh.size} devices in {train.accumulation} microbatches: write a multiple of {unit}."
        )
    programs = {}
    for name in chosen.programs:
        logger.info("compiling %s for %s", name, machine.name)
        programs[name] = _MAKERS[name](experiment, machine, mesh)
    largest = None
    if chosen.largest_batch and "train" in programs:
        step = programs["train"]
        known = {train.batch_size: step["memory"]["total"] if step["memory"] else None}

        def needs(batch_size: int) -> int | None:
            logger.info("compiling train with %d images for %s", batch_size, machine.name)
            program = _step(Training.of(experiment, mesh, batch_size), mesh)
            return None if program is None else program.memory

        largest = largest_batch(needs, known=known, unit=unit, memory=machine.memory).to_json()
    return {
        "model": experiment.name,
        "machine": {
            "name": machine.name,
            "devices": mesh.size,
            "memory": machine.memory,
            "bandwidth": machine.bandwidth,
            "peak_flops": machine.peak(experiment.model.shape.dtype),
            "source": machine.source,
        },
        "mesh": dict(mesh.shape),
        "jax": jax.__version__,
        "programs": programs,
        "largest_batch": largest,
    }


def _train(experiment: Experiment, machine: Machine, mesh: Mesh) -> dict[str, Any]:
    batch_size = experiment.settings.train.batch_size
    training = Training.of(experiment, mesh, batch_size)
    program = _step(training, mesh)
    rows = "live rows" if training.optimization.recipe.on_live_rows else "masked"
    found = {"batch_size": batch_size, "execution": rows, "held": held_between_steps(training)}
    return found | _figures(program, experiment, machine, mesh.size)


def _eval(experiment: Experiment, machine: Machine, mesh: Mesh) -> dict[str, Any]:
    batch_size = _whole(experiment.settings.eval.batch_size, mesh.size)
    program = _unless_full(lambda: evaluation(experiment, mesh, batch_size), mesh)
    held = {"parameters": bytes_on_device(abstract_on(mesh, experiment.model.abstract_params()))}
    found = {"batch_size": batch_size, "execution": "masked", "held": held}
    return found | _figures(program, experiment, machine, mesh.size)


def _predict(experiment: Experiment, machine: Machine, mesh: Mesh) -> dict[str, Any]:
    """On one device: each answers its own images, and none waits for another."""
    batch_size = _whole(experiment.settings.inference.batch_size, mesh.size)
    device = machine.devices[0]
    traced, name = prediction(experiment, device, batch_size // mesh.size)
    alone = make_mesh(devices=[device])
    params = abstract_on(alone, experiment.model.abstract_params())
    program = _unless_full(lambda: traced, alone)
    found = {
        "batch_size": batch_size,
        "execution": name,
        "held": {"parameters": bytes_on_device(params)},
    }
    return found | _figures(program, experiment, machine, 1)


_MAKERS: dict[str, Callable[[Experiment, Machine, Mesh], dict[str, Any]]] = {
    "train": _train,
    "eval": _eval,
    "predict": _predict,
}


def _step(training: Training, mesh: Mesh) -> Program | None:
    return _unless_full(training.trace, mesh)


def _unless_full(trace: Callable[[], jax.stages.Traced], mesh: Mesh) -> Program | None:
    """A compiled program; `None` where the compiler finds no room for it in the memory."""
    try:
        return compiled(trace, mesh)
    except jax.errors.JaxRuntimeError as error:
        if FULL not in str(error):
            raise
        logger.info("it has no room: %s", " ".join(str(error).split())[:300])
        return None


def _figures(
    program: Program | None, experiment: Experiment, machine: Machine, devices: int
) -> dict[str, Any]:
    if program is None:
        return {"memory": None, "fits": False}
    dtype = experiment.model.shape.dtype
    return figures(program, machine, devices=devices, dtype=dtype)


def _whole(images: int, devices: int) -> int:
    """So many images, or the fewest more that divide among the devices."""
    return -(-images // devices) * devices
