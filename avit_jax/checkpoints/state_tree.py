"""What the leaves of a saved state may be, and whether a checkpoint and a model agree on them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from etils import epath

from avit_jax.errors import UserError

_MOST_DIFFERENCES = 8  # listed in one error message


def savable(path: Any, leaf: Any) -> Any:
    """Refuses what Orbax would fail on late or silently change."""
    if isinstance(leaf, np.generic):
        return np.asarray(leaf)
    if isinstance(leaf, int) and not -(2**63) <= leaf < 2**63:
        raise ValueError(f"{_name(path)} = {leaf} cannot be saved: it does not fit 64 bits.")
    if isinstance(leaf, jax.Array | np.ndarray) and leaf.size == 0:
        raise ValueError(
            f"{_name(path)} has shape {leaf.shape} and cannot be saved: leave empty arrays out."
        )
    if not isinstance(leaf, jax.Array | np.ndarray | int | float):
        raise ValueError(
            f"{_name(path)} is a {type(leaf).__name__} and cannot be saved: a state holds arrays "
            "and numbers."
        )
    return leaf


def restorable(path: Any, leaf: Any) -> Any:
    """Describes a leaf of the target to Orbax, holding on to no memory of devices."""
    if isinstance(leaf, np.generic):
        return np.asarray(leaf)
    if isinstance(leaf, int | float | np.ndarray):
        return leaf
    if leaf.sharding is None:
        raise ValueError(
            f"{_name(path)} of the target has no sharding: give each jax.ShapeDtypeStruct one."
        )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def describe(tree: Any) -> dict[str, str]:
    """Path of every leaf -> its type, such as `float32[8,192]`, `key<fry>[]` or `int`."""

    def description(leaf: Any) -> str:
        if isinstance(leaf, int | float):
            return type(leaf).__name__
        return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"

    return {_name(path): description(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def check_same(saved: dict[str, str], wanted: dict[str, str], path: epath.Path) -> None:
    """Compares two results of `describe`: what a checkpoint holds and what a model needs.

    Raises:
        UserError: they differ; the sentence lists the differing paths.
    """
    differences = [
        f"{name} is {saved.get(name, 'missing')} in the checkpoint and "
        f"{wanted.get(name, 'not in the model')} here"
        for name in sorted(saved.keys() | wanted.keys())
        if saved.get(name) != wanted.get(name)
    ]
    if differences:
        left_out = len(differences) - _MOST_DIFFERENCES
        more = [f"and {left_out} more"] if left_out > 0 else []
        listed = "; ".join(differences[:_MOST_DIFFERENCES] + more)
        raise UserError(
            f"the checkpoint {path} does not fit ({listed}): use the config that it was saved "
            "with, or another --workdir."
        )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
