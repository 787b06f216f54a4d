"""Names of Facebook's own files of DeiT III and DINOv2, where timm's differ."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

# A pattern of a name, and what it becomes.
_RENAMES = (
    # Blocks of a training run in chunks, in which each keeps its number of all of them.
    (re.compile(r"blocks\.\d+\.(\d+)\.(.+)"), r"blocks.\1.\2"),
    (re.compile(r"blocks\.(\d+)\.gamma_([12])"), r"blocks.\1.ls\2.gamma"),
    (re.compile(r"register_tokens"), "reg_token"),
)


def to_timm(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays under timm's names; those that are timm's already, or unknown, stay as they are."""
    return {_renamed(name): array for name, array in state_dict.items()}


def _renamed(name: str) -> str:
    for pattern, timm in _RENAMES:
        if match := pattern.fullmatch(name):
            name = match.expand(timm)
    return name
