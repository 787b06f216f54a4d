"""Which batch devices would share in a mode, asked before JAX starts (`runtime/cpu_devices.py`)."""

from __future__ import annotations

from ml_collections import ConfigDict

from avit_jax.config.defaults import Settings

# Calibration races programs for the number of devices that predictions then run on.
_INFERENCE = ("predict", "calibrate")


def images_of(mode: str, config: ConfigDict) -> int:
    """Images of a batch that the devices of a machine may share; 1 where none is to be shared.

    A training resumes bit-identically only on the number of devices it began with, a benchmark
    tries several, an export is for other machines; pictures take longer to draw than to compute.

    Args:
        mode: of the command line.
        config: of the run; where it arranges a mesh, somebody has counted the devices.

    Raises:
        UserError: settings that contradict each other.
    """
    settings = Settings.of(config)
    if (settings.mesh.data, settings.mesh.fsdp) != (-1, 1):
        return 1
    if mode in _INFERENCE:
        return settings.inference.batch_size
    return settings.eval.batch_size if mode == "eval" else 1
