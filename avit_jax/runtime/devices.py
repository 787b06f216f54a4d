"""What kinds of devices can do."""

from __future__ import annotations

import jax


def has_cudnn(device: jax.Device) -> bool:
    """Whether a device, or one of the kind that is compiled for, runs cuDNN's fused attention.

    That wants an NVIDIA GPU of the Ampere generation or later.
    """
    runtime = getattr(getattr(device, "client", None), "platform_version", "cuda")
    if device.platform != "gpu" or "cuda" not in runtime:
        return False
    capability = getattr(device, "compute_capability", "8.0")
    return tuple(int(part) for part in capability.split(".")) >= (8, 0)
