"""Adaptive-compute vision transformers in JAX: models that spend work where an image needs it."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from avit_jax.runtime import interrupts

if interrupts.is_command(sys.orig_argv):
    interrupts.end_at_once()

from avit_jax.errors import UserError
from avit_jax.pretrained.torch_writer import save_torch
from avit_jax.pretrained.weights import load_torch
from avit_jax.runtime import known_faults
from avit_jax.runtime.cpu_devices import use_every_core
from avit_jax.types import Gates, Output, Usage
from avit_jax.version import __version__
from avit_jax.zoo import create_model, list_models

if TYPE_CHECKING:
    from avit_jax.calibration.from_python import meet_budgets
    from avit_jax.prediction.load_run import load_run
    from avit_jax.prediction.loaded_run import LoadedRun, Prediction
    from avit_jax.prediction.preprocessing import preprocess
    from avit_jax.training.from_python import train

known_faults.avoid()  # JAX starts with its first array, and the imports above make none

__all__ = [
    "Gates",
    "LoadedRun",
    "Output",
    "Prediction",
    "Usage",
    "UserError",
    "__version__",
    "create_model",
    "list_models",
    "load_run",
    "load_torch",
    "meet_budgets",
    "preprocess",
    "save_torch",
    "train",
    "use_every_core",
]

# With checkpoints and readers of images, which models do not need: imported when first used.
_LATER = {
    "LoadedRun": "avit_jax.prediction.loaded_run",
    "Prediction": "avit_jax.prediction.loaded_run",
    "load_run": "avit_jax.prediction.load_run",
    "meet_budgets": "avit_jax.calibration.from_python",
    "preprocess": "avit_jax.prediction.preprocessing",
    "train": "avit_jax.training.from_python",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
