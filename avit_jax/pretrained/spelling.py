"""The one step that brings names of weights to ours: from whoever wrote them to timm's, and back.

Everything else here reads timm's names, which DeiT and A-ViT share (`names.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from avit_jax.errors import UserError
from avit_jax.pretrained import facebook_names, npz, transformers_names
from avit_jax.pretrained.arrays import as_arrays
from avit_jax.pretrained.wrappers import unwrapped

LAYOUTS = ("timm", *transformers_names.LAYOUTS)


def timm_named(
    state_dict: Mapping[str, Any], *, num_heads: int, wanted: Collection[str]
) -> dict[str, np.ndarray]:
    """Weights as NumPy arrays under timm's names; unknown names stay as they are.

    Args:
        state_dict: arrays of NumPy, JAX or torch under the names of timm, of Facebook's files, of
          transformers or of google-research/vision_transformer, in whatever wrappers.
        num_heads: of the model they are for.
        wanted: names in timm of that model's parameters.

    Raises:
        UserError: no mapping of names to arrays, or weights of another number of heads.
    """
    arrays = unwrapped(as_arrays(state_dict), wanted)
    if npz.is_google_research(arrays):
        return npz.to_timm(arrays, num_heads=num_heads)
    if transformers_names.is_transformers(arrays):
        return transformers_names.to_timm(arrays)
    return facebook_names.to_timm(arrays)


def in_layout(state_dict: Mapping[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Weights under timm's names, under those of a layout.

    Raises:
        UserError: no such layout, or one that has no names for them.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is unknown: write {', '.join(LAYOUTS)}.")
    if layout == "timm":
        return dict(state_dict)
    return transformers_names.from_timm(state_dict, layout)
