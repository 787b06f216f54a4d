"""What chips can do at most, as their makers publish it."""

from __future__ import annotations

import re

# Dense bfloat16 TFLOP/s, by what JAX calls a device (`device_kind`); the first that matches counts.
# Where makers publish a figure "with sparsity", half of it. Sources: NVIDIA's data sheets of H200
# (SXM and NVL), H100 (SXM, PCIe and NVL), A100 and L4; Google Cloud's documentation of TPU v4, v5e,
# v5p and v6e ("peak compute per chip").
_PEAKS = (
    (r"NVIDIA H[12]00 NVL", 835.5),
    (r"NVIDIA H100 PCIe", 756.5),
    (r"NVIDIA H[12]00\b", 989.5),
    (r"NVIDIA A100\b", 312.0),
    (r"NVIDIA L4\b", 121.0),
    (r"TPU v4$", 275.0),
    (r"TPU (v5 lite|v5e)$", 197.0),
    (r"TPU (v5|v5p)$", 459.0),
    (r"TPU (v6 lite|v6e)$", 918.0),
)


def published_peak(device_kind: str, dtype: str) -> float | None:
    """FLOP/s of one device; `None` for chips and dtypes that the table lacks.

    Args:
        device_kind: as JAX names it, such as "NVIDIA H100 80GB HBM3" or "TPU v5 lite".
        dtype: of the products; the table has bfloat16 only.
    """
    if dtype != "bfloat16":
        return None
    found = (peak for pattern, peak in _PEAKS if re.match(pattern, device_kind))
    peak = next(found, None)
    return None if peak is None else peak * 1e12
