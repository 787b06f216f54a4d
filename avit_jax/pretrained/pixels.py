"""Weights that were trained on differently normalised pixels, changed to take ours.

Every image here is normalised with ImageNet's channel statistics (`data/mix.py`), as for DeiT. The
vision transformers of google-research, AugReg's among them, were trained on pixels scaled to -1..1
(arXiv 2106.10270), and timm keeps it so. The patch embedding is linear, so its parameters can
absorb the difference: with `x` our pixel and `a * x + b` theirs, `W (a * x + b) + c` is
`(a W) x + (b W + c)`. This is exact but for the rounding of float32.
"""

from __future__ import annotations

import jax
import numpy as np

from avit_jax.data.mix import MEAN, STD
from avit_jax.errors import UserError
from avit_jax.models.functional import Params
from avit_jax.models.shape import Shape

# Channel means and standard deviations by which pixels in 0..1 are normalised, by name.
PIXELS = {"imagenet": (MEAN, STD), "symmetric": ((0.5,) * 3, (0.5,) * 3)}


def for_our_pixels(params: Params, pixels: str, shape: Shape) -> Params:
    """Parameters that compute from our pixels what `params` computed from those of their training.

    Args:
        params: of a model; its patch embedding reads (row, column, colour), `[p * p * 3, D]`.
        pixels: a key of `PIXELS`; "imagenet" returns `params` as they are.
        shape: of the model's backbone.

    Raises:
        UserError: the model's first layer is not linear in the pixels.
    """
    if pixels == "imagenet":
        return params
    name = shape.patch_embedding
    if name is None:
        raise UserError(
            f"config.init.pixels is {pixels!r}, which only a linear patch embedding can take over: "
            "leave it out for this model."
        )
    if name not in params:  # networks of a cascade, side by side
        return {key: for_our_pixels(part, pixels, shape) for key, part in params.items()}
    mean, std = (np.asarray(values, np.float64) for values in PIXELS[pixels])
    scale, offset = np.asarray(STD) / std, (np.asarray(MEAN) - mean) / std
    embedding = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[name])
    kernel, bias = embedding["kernel"], embedding["bias"]
    colours = len(kernel) // 3
    moved = {
        "kernel": np.tile(scale, colours)[:, None] * kernel,
        "bias": np.tile(offset, colours) @ kernel + bias,
    }
    return params | {name: jax.tree.map(lambda leaf: leaf.astype(np.float32), moved)}
