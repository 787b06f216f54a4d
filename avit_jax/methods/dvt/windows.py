"""Weights of a cascade made to fit exits whose windows have another number of pixels.

An exit of g x g patches has windows of about S / g pixels, so its kernel is another one for images
of another size S or for another grid.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from avit_jax.models.grid_resize import resize_kernel

_logger = logging.getLogger(__name__)
_COLOURS = 3
_MODULES = ("patch_embed.", "tokens_to_token.")  # upstream's, that have windows for inputs


def fitted(state_dict: Mapping[str, np.ndarray], model: Any) -> dict[str, np.ndarray]:
    """Arrays under upstream's names with kernels for the exit `model`.

    Kernels over windows are resized by pseudo-inverse, norms over them by interpolation. All else
    stays as it is.
    """
    shapes = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), model.abstract_params()
    )
    wanted = {name: array.shape for name, array in model.to_timm(shapes).items()}
    found = dict(state_dict)
    for name, array in state_dict.items():
        if np.shape(array) == wanted.get(name, np.shape(array)):
            continue
        if name.startswith(_MODULES) and (resized := _resized(array, wanted[name])):
            found[name], sides = resized
            _logger.info("%s is resized from windows of %d x %d to %d x %d.", name, *sides)
    return found


def _resized(
    array: np.ndarray, wanted: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, ...]] | None:
    """An array over windows for windows of another size, and their sides; `None` for any other.

    Args:
        array: `[D, 3, k, k]`, `[D, 3 * k * k]` or, of a norm, `[3 * k * k]`.
        wanted: its shape with another k.
    """
    if np.ndim(array) != len(wanted) or len(wanted) not in (1, 2, 4):
        return None
    outputs = wanted[: len(wanted) > 1]
    pixels, inputs = (math.prod(shape[len(outputs) :]) for shape in (array.shape, wanted))
    sides = [math.isqrt(count // _COLOURS) for count in (pixels, inputs)]
    squares = [_COLOURS * side**2 for side in sides]
    if array.shape[: len(outputs)] != outputs or squares != [pixels, inputs] or 0 in sides:
        return None
    former, side = sides
    windows = np.moveaxis(np.reshape(array, (*outputs, _COLOURS, former, former)), (-2, -1), (0, 1))
    if outputs:
        windows = resize_kernel(windows, side)
    else:  # a norm's, which acts on each pixel by itself
        windows = np.asarray(jax.image.resize(windows, (side, side, _COLOURS), "linear"))
    resized = np.moveaxis(windows, (0, 1), (-2, -1)).reshape(wanted)
    return resized, (former, former, side, side)
