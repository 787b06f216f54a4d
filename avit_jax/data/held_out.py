"""Which images of a folder are kept from training, where it has no folder of validation images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def held_out(names: Sequence[str], share: float) -> frozenset[int]:
    """Positions of the images of one class that are held out, drawn by their names.

    The same names give the same images on every machine, in whatever order they are listed. A new
    image moves at most one other between the two parts.

    Args:
        names: of the class's images, paths below its folder.
        share: of the images, below 1. At least one is held out, and at least one is not; of a
            single image none.
    """
    if not share or len(names) < 2:
        return frozenset()
    count = min(max(1, round(share * len(names))), len(names) - 1)
    drawn = sorted(range(len(names)), key=lambda position: _digest(names[position]))
    return frozenset(drawn[:count])


def _digest(name: str) -> bytes:
    plain = name.replace("\\", "/").encode(errors="surrogateescape")
    return hashlib.sha256(plain).digest()
