"""Plans that calibration found, stored beside the checkpoints: `workdir/plans.json`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from avit_jax.errors import UserError
from avit_jax.inference.plan import Plan, default_plan
from avit_jax.models.backbone import Shape
from avit_jax.writer import write_json_atomic

FILE = "plans.json"


def situation(shape: Shape, batch_size: int) -> dict[str, Any]:
    """What a plan was made for: another machine, size or batch wants another one."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "batch_size": batch_size,
        "image_size": shape.image_size,
        "tokens": shape.num_tokens,
        "embed_dim": shape.embed_dim,
        "depth": shape.depth,
        "dtype": shape.dtype,
    }


def save_plan(workdir: Path, where: dict[str, Any], plan: Plan, record: dict[str, Any]) -> Path:
    """Store a plan, in place of an older one for the same situation."""
    others = [entry for entry in _read(workdir) if entry["situation"] != where]
    file = workdir / FILE
    write_json_atomic(file, [*others, {"situation": where, "plan": plan.to_dict(), **record}])
    return file


def chosen_plan(config: ConfigDict, workdir: Path) -> Plan | None:
    """The plan to use: calibrated for this situation if there is one, changed as the config says.

    Returns:
        `None` where neither calibration nor config says anything.
    """
    from avit_jax.config import make_model  # config.py knows the executions, which know plans

    shape, settings = make_model(config).shape, config.inference
    where = situation(shape, settings.batch_size)
    found = [Plan(**entry["plan"]) for entry in _read(workdir) if entry["situation"] == where]
    names = [field.name for field in dataclasses.fields(Plan)]
    given = {name: settings[name] for name in names if settings[name] is not None}
    if not found and not given:
        return None
    local = max(1, settings.batch_size // jax.device_count())
    plan = found[0] if found else default_plan(shape.num_tokens, local)
    return dataclasses.replace(plan, **given)


def _read(workdir: Path) -> list[dict[str, Any]]:
    file = workdir / FILE
    if not file.exists():
        return []
    try:
        entries = json.loads(file.read_text())
        # Made here, so that a damaged entry is noticed whichever is wanted.
        for entry in entries:
            Plan(**entry["plan"]), entry["situation"]
        return entries
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} is no list of plans ({error}): delete it and run --mode calibrate again."
        ) from error
