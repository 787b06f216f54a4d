"""Synthetic profiles: weights and images that skip as much as asked, to measure speed by.

Nothing in the program is special: only weights and images are chosen so that the method's own rule
leaves the wanted share of the multiply-adds. How, says each method (`Model.synthetic`).
"""

from __future__ import annotations

import numpy as np

from avit_jax.data.mix import MEAN, STD
from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params

LARGEST_PIXEL = 2.0  # normalised; what a uint8 image can hold on both sides of 0


def sensible(model: Model) -> tuple[str, ...]:
    """Profiles to measure where none is asked for: "paper" and "half", or else "real"."""
    return tuple(name for name in ("paper", "half") if name in model.synthetic_profiles()) or (
        "real",
    )


def script(model: Model, name: str, batch_size: int, *, seed: int = 0) -> tuple[Params, np.ndarray]:
    """Parameters and images `[B, H, W, 3]` that use a named share of the dense GMACs.

    Args:
        model: of a method that has such profiles.
        name: of one, see `Model.synthetic_profiles`.
        batch_size: B.
        seed: of everything random.

    Raises:
        UserError: this model has no such profile.
    """
    known = model.synthetic_profiles()
    if name not in known:
        raise UserError(
            f"this model has no synthetic profile {name!r}: write some of "
            f"{', '.join([*known, 'real'])} into config.benchmark.profiles, where real is this "
            "run's own weights and images."
        )
    return model.synthetic(known[name], batch_size, seed=seed)


def as_pixels(model: Model, params: Params, images: np.ndarray) -> tuple[Params, np.ndarray]:
    """Weights, and the images as uint8 pixels from which they compute what they did before.

    Synthetic images are brighter than pixels can be. They are shifted and shrunk, and the patch
    embedding, which is linear, makes up for it; rounding moves few tokens by a layer.

    Args:
        model: that takes them.
        params: of it.
        images: `[B, H, W, 3]`, normalised.
    """
    name = model.shape.patch_embedding
    if name is not None and np.abs(images).max() > LARGEST_PIXEL:
        centre = float(images.mean())
        scale = float(np.abs(images - centre).max()) / LARGEST_PIXEL
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        moved = {"kernel": kernel * scale, "bias": bias + centre * kernel.sum(0)}
        params = params | {name: params[name] | moved}
        images = (images - centre) / scale
    pixels = np.round(255.0 * (images * np.asarray(STD) + np.asarray(MEAN)))
    return params, np.clip(pixels, 0, 255).astype(np.uint8)
