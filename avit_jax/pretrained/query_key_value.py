"""Query, key and value of a block: one array in timm and here, three elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

PARTS = ("query", "key", "value")
_APART = re.compile(r"(blocks\.\d+\.attn\.)query\.(weight|bias)")


def joined(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With query, key and value of a block as one array, `attn.qkv`.

    Incomplete triples stay as they are, for the check of names to complain about.
    """
    result = dict(state_dict)
    for match in filter(None, map(_APART.fullmatch, state_dict)):
        stem, leaf = match.groups()
        names = [f"{stem}{part}.{leaf}" for part in PARTS]
        shapes = {np.shape(result[name]) for name in names if name in result}
        if all(name in result for name in names) and len(shapes) == 1:
            result[f"{stem}qkv.{leaf}"] = np.concatenate([np.asarray(result.pop(n)) for n in names])
    return result


def apart(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `joined`."""
    result = {}
    for name, array in state_dict.items():
        stem, found, leaf = name.partition("attn.qkv.")
        if not found or not stem.startswith("blocks."):
            result[name] = array
            continue
        for part, piece in zip(PARTS, np.split(array, 3), strict=True):
            result[f"{stem}attn.{part}.{leaf}"] = piece
    return result
