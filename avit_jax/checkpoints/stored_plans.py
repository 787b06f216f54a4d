"""What calibration found, stored beside the checkpoints: plans and executions, `plans.json`."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import jax

from avit_jax.config.inference import Inference
from avit_jax.errors import UserError
from avit_jax.execution.capped import CAPPED
from avit_jax.execution.executions import current_name, fastest
from avit_jax.execution.plan import Plan
from avit_jax.execution.static import STATIC
from avit_jax.methods.base import Model
from avit_jax.models.shape import Shape
from avit_jax.runtime.files import write_json_atomic

logger = logging.getLogger(__name__)

FILE = "plans.json"
SIZES = ("images", "row_sizes", "attention_images", "lengths", "static_rows")  # that were raced


def situation(shape: Shape, batch_size: int, devices: int | None = None) -> dict[str, Any]:
    """What a plan was made for: another machine, size or batch wants another one.

    Args:
        shape: of the network.
        batch_size: over all devices.
        devices: that share it; all there are if unset.
    """
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "devices": devices or jax.device_count(),
        "batch_size": batch_size,
        "image_size": shape.image_size,
        "tokens": shape.num_tokens,
        "embed_dim": shape.embed_dim,
        "depth": shape.depth,
        "dtype": shape.dtype,
    }


def save_plan(workdir: Path, where: dict[str, Any], plan: Plan, record: dict[str, Any]) -> Path:
    """Store a plan, in place of an older one for the same situation.

    Args:
        workdir: of the run.
        where: the situation.
        plan: chosen.
        record: how it was found; `record["execution"]` is the fastest exact execution, and
            `record["settings"]` the `settings_in_use` that it was raced with.
    """
    others = [entry for entry in _read(workdir) if entry["situation"] != where]
    file = workdir / FILE
    write_json_atomic(file, [*others, {"situation": where, "plan": plan.to_dict(), **record}])
    return file


def settings_in_use(model: Model) -> dict[str, Any]:
    """The method's settings that a trained model may have otherwise, as JSON gives them back."""
    return json.loads(json.dumps(_in_use(model.settings)))


def _in_use(settings: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found[field.name] = _in_use(value)
        elif field.metadata.get("use"):
            found[field.name] = value
    return found


def _of_these_settings(entry: dict[str, Any], model: Model) -> bool:
    """Whether a plan was raced with the model's settings, which say how much is skipped."""
    here = settings_in_use(model)
    return entry.get("settings", here) == here


def chosen_plan(
    settings: Inference, model: Model, workdir: Path, *, name: str, devices: int | None = None
) -> Plan | None:
    """The plan to use: calibrated for this situation if there is one, changed as the config says.

    Of a calibration on another number of devices capacities are taken, which are of images; a
    warning says so. Of one with other settings of the method, as of another budget, sizes of static
    buffers are not taken.

    Args:
        settings: `config.inference`.
        model: that is to run.
        workdir: of the run.
        name: of the model, for people.
        devices: that share a batch; all there are if unset.

    Returns:
        `None` where neither calibration nor config says anything.
    """
    entry = _entry(settings, model.shape, workdir, devices)
    elsewhere = None if entry else _on_other_devices(settings, model.shape, workdir, devices)
    sizes = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Plan)}
    given = {size: value for size, value in sizes.items() if value is not None}
    if "capacities" in given and not CAPPED.offered(model):
        raise UserError(
            f"config.inference.capacities is {given['capacities']}, but {name} has no "
            "use for it: leave it out."
        )
    if "static_rows" in given and not STATIC.offered(model):
        raise UserError(
            f"config.inference.static_rows is {given['static_rows']}, but {name} has no "
            "use for it: leave it out."
        )
    if elsewhere and elsewhere["plan"].get("capacities"):
        given = {"capacities": elsewhere["plan"]["capacities"]} | given
    if entry is None and not given:
        return None
    local = max(1, settings.batch_size // (devices or jax.device_count()))
    plan = Plan.from_dict(entry["plan"]) if entry else model.default_plan(local)
    if entry and not _of_these_settings(entry, model):  # a dearer setting wants more places
        plan = dataclasses.replace(plan, static_rows=None)
    return dataclasses.replace(plan, **given)


def chosen_execution(settings: Inference, model: Model, workdir: Path) -> str:
    """`config.inference.execution`, where "auto" is the fastest exact one for this situation.

    That is what calibration found; what suits the platform without calibration, and where the
    config gives sizes or settings of the method that calibration has not measured.
    """
    if settings.execution != "auto":
        return current_name(settings.execution)
    entry = _entry(settings, model.shape, workdir)
    raced = entry is not None and _of_these_settings(entry, model)
    if not raced or any(getattr(settings, name) is not None for name in SIZES):
        return fastest(model, jax.default_backend()).name
    logger.info("execution %s, the fastest in calibration", entry["execution"])
    return entry["execution"]


def _on_other_devices(
    settings: Inference, shape: Shape, workdir: Path, devices: int | None
) -> dict[str, Any] | None:
    """What calibration found for this situation but for the devices; a warning says so."""
    where = situation(shape, settings.batch_size, devices)
    others = [
        entry
        for entry in _read(workdir)
        if entry["situation"] | {"devices": where["devices"]} == where
    ]
    if not others:
        return None
    logger.warning(
        "sizes in %s are for a batch on %d devices and not used on %d: run --mode calibrate on as "
        "many as now, or start with JAX_NUM_CPU_DEVICES=%d.",
        workdir / FILE,
        others[-1]["situation"]["devices"],
        where["devices"],
        others[-1]["situation"]["devices"],
    )
    return others[-1]


def _entry(
    settings: Inference, shape: Shape, workdir: Path, devices: int | None = None
) -> dict[str, Any] | None:
    where = situation(shape, settings.batch_size, devices)
    found = next((entry for entry in _read(workdir) if entry["situation"] == where), None)
    if found and where["platform"] == "tpu" and "ragged_attention" not in found["plan"]:
        logger.warning(
            "%s is from before there were kernels for TPUs, and left out: run --mode calibrate "
            "again.",
            workdir / FILE,
        )
        return None
    return found


def _read(workdir: Path) -> list[dict[str, Any]]:
    file = workdir / FILE
    if not file.exists():
        return []
    try:
        entries = json.loads(file.read_text())
        # Made here, so that a damaged entry is noticed whichever is wanted.
        for entry in entries:
            Plan.from_dict(entry["plan"]), entry["situation"], entry["execution"]
        return entries
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} is no list of plans ({error}): delete it and run --mode calibrate again."
        ) from error
