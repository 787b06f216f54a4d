"""Which batch devices would share in a mode, asked before JAX starts (`runtime/cpu_devices.py`)."""

from __future__ import annotations

from typing import NamedTuple

from ml_collections import ConfigDict

from avit_jax.config.defaults import Settings
from avit_jax.config.model import make_model

# Calibration races programs for the number of devices that predictions then run on.
_INFERENCE = ("predict", "calibrate")


class Batch(NamedTuple):
    """What devices may share.

    Attributes:
        images: of a batch; 1 where none is to be shared.
        gmacs: of an image, dense.
    """

    images: int
    gmacs: float


def batch_of(mode: str, config: ConfigDict) -> Batch:
    """The batch that the devices of a machine may share in a mode.

    A training resumes bit-identically only on the number of devices it began with, a benchmark
    tries several, an export is for other machines; pictures take longer to draw than to compute.

    Args:
        mode: of the command line.
        config: of the run; where it arranges a mesh, somebody has counted the devices.

    Raises:
        UserError: settings that contradict each other.
    """
    settings = Settings.of(config)
    sizes = dict.fromkeys(_INFERENCE, settings.inference.batch_size)
    sizes["eval"] = settings.eval.batch_size
    is_arranged = (settings.mesh.data, settings.mesh.fsdp) != (-1, 1)
    images = 1 if is_arranged else sizes.get(mode, 1)
    return Batch(images, make_model(config).dense_gmacs() if images > 1 else 0.0)
