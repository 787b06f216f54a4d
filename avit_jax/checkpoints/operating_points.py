"""Operating points: budgets that a trained model meets without training, kept beside its weights.

An operating point is a setting of the method's dial (`Model.dial`) under the name of the budget it
was found for. `--mode calibrate --budget ...` measures them and writes
`workdir/operating_points.json`; `--operating_point 0.8` puts one in force. The file says which
weights and settings it was measured with, and is not used with others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import numbers
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from avit_jax import config as configs
from avit_jax.checkpoints import manifest
from avit_jax.checkpoints.budgets import normal_name
from avit_jax.checkpoints.store import Checkpoints
from avit_jax.errors import UserError
from avit_jax.runtime.files import write_json_atomic
from avit_jax.types import DialSettings

logger = logging.getLogger(__name__)

FILE = "operating_points.json"
LEARNT = "learnt"  # the name of the model's own setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """One setting of the dial, and what it came to.

    Attributes:
        name: the budget as one writes it ("0.8", "2.9gmacs", "5ms"), or "learnt".
        settings: of the method, in force at this point.
        target_gmacs: wanted per image; `None` for "learnt" and for times.
        gmacs_calibration: per image, over the calibration images.
        gmacs: per image, over the evaluation split.
        gmacs_dense: per image, with nothing skipped.
        top1: share of the evaluation split.
        mean_depth: layers per token, over the evaluation split.
        milliseconds: median per batch, for budgets in time.
        batch_size: images of such a batch.
    """

    name: str
    settings: DialSettings
    target_gmacs: float | None
    gmacs_calibration: float
    gmacs: float
    gmacs_dense: float
    top1: float
    mean_depth: float
    milliseconds: float | None = None
    batch_size: int | None = None

    def __post_init__(self):
        """Lists, as JSON holds them, become tuples; TypeError for what no dial says."""
        settings = {n: tuple(v) if isinstance(v, list) else v for n, v in self.settings.items()}
        for name, value in settings.items():
            several = value if isinstance(value, tuple) else (value,)
            if not all(_is_number(one) for one in several):
                raise TypeError(f"setting {name} of point {self.name} is {value!r}")
        object.__setattr__(self, "settings", settings)

    @property
    def settings_text(self) -> dict[str, str]:
        """The settings for people."""
        return {
            name: " ".join(f"{one:.5g}" for one in (value if isinstance(value, tuple) else [value]))
            for name, value in self.settings.items()
        }


def measured_with(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """What operating points depend on: the weights in use, and the settings of model and method.

    Raises:
        UserError: the newest checkpoint is damaged.
    """
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.close()
    steps = checkpoints.steps()
    step, digest = (steps[-1] if steps else None), None
    if step is not None:
        folder = epath.Path(workdir) / "checkpoints" / str(step)
        damage = manifest.find_damage(folder)
        if damage is not None:
            raise UserError(
                f"the checkpoint {folder} is damaged ({damage}), so that operating points cannot "
                "be told to belong to it: evaluate without one, which moves it aside, and "
                "calibrate again."
            )
        digest = hashlib.sha256((folder / manifest.NAME).read_bytes()).hexdigest()
    shown = {"model": config.model, "method": config.method}
    if step is None:  # then the weights are those that a training would start from
        shown["init"] = config.init
    return {
        "checkpoint_step": step,
        "checkpoint_sha256": digest,
        "weights": config.eval.weights,
        "config": json.loads(configs.to_json(ConfigDict(shown))),
    }


def save_points(
    workdir: Path, measured: dict[str, Any], points: Sequence[OperatingPoint], **record: Any
) -> Path:
    """Store points, in place of older ones of the same names, or of other weights and settings.

    Args:
        workdir: of the run.
        measured: from `measured_with`.
        points: to store.
        **record: what else to keep, for people.
    """
    found = _read(workdir)
    kept = found["points"] if found and not _changes(found["measured_with"], measured) else []
    names = {point.name for point in points}
    entries = [entry for entry in kept if entry["name"] not in names]
    entries += [dataclasses.asdict(point) for point in points]
    file = workdir / FILE
    entries.sort(key=lambda entry: entry["gmacs_calibration"])
    write_json_atomic(file, {"measured_with": measured, **record, "points": entries})
    return file


def at_operating_point(config: ConfigDict, workdir: Path, name: str) -> ConfigDict:
    """The config with a stored operating point in force.

    Args:
        config: of the run; stays as it is.
        workdir: of the run.
        name: of the point; a budget may be written in other ways (`0.80`).

    Raises:
        UserError: there is no such point, or it was measured with other weights or settings.
    """
    found = _read(workdir)
    if found is None:
        raise UserError(
            f"{workdir} has no operating points: run --mode calibrate --budget "
            f"{'0.8' if name == LEARNT else name} there first."
        )
    points = {entry["name"]: OperatingPoint(**entry) for entry in found["points"]}
    point = points.get(normal_name(name))
    if point is None:
        raise UserError(
            f"there is no operating point {name!r} in {workdir / FILE}: write one of "
            f"{', '.join(points)}, or run --mode calibrate --budget for another."
        )
    changes = _changes(found["measured_with"], measured_with(config, workdir))
    if changes:
        raise UserError(
            f"the operating points in {workdir / FILE} were measured with other weights or "
            f"settings ({'; '.join(changes)}): run --mode calibrate --budget again, or go back to "
            "those."
        )
    changed = ConfigDict(config.to_dict())
    if point.name != LEARNT:  # whose settings are those of the config, perhaps written otherwise
        changed.method.update_from_flattened_dict(point.settings)
    logger.info(
        "operating point %s: %s; measured %.4g of %.4g GMACs, top-1 %.2f %%",
        point.name,
        ", ".join(f"{key} {value}" for key, value in point.settings_text.items()),
        point.gmacs,
        point.gmacs_dense,
        100 * point.top1,
    )
    return changed.lock()


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two of `measured_with`, for people."""
    names = {
        "checkpoint_step": "the checkpoint's step",
        "checkpoint_sha256": "the checkpoint's contents",
        "weights": "config.eval.weights",
    }
    changed = [
        f"{shown}: {then.get(key)!r} -> {now.get(key)!r}"
        if key != "checkpoint_sha256"
        else f"{shown} (SHA-256)"
        for key, shown in names.items()
        if then.get(key) != now.get(key)
    ]
    saved = json.dumps(then["config"])
    differences = configs.differences(ConfigDict(now["config"]), saved)
    return changed + [f"config.{line}" for line in differences.values()]


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and isfinite(value)


def _read(workdir: Path) -> dict[str, Any] | None:
    file = workdir / FILE
    if not file.exists():
        return None
    try:
        found = json.loads(file.read_text())
        # Made here, so that a damaged entry is noticed whichever is wanted.
        for entry in found["points"]:
            OperatingPoint(**entry)
        found["measured_with"]["config"].items()
        return found
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} holds no operating points ({error}): delete it and run --mode calibrate "
            "--budget again."
        ) from error
