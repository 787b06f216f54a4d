"""Parameters that a fine-tuning treats unlike the others: held fixed, or moved at a slower rate.

Few images say little about what an early layer should do, so trained weights keep more of what they
know where such parts stay as they are or move less.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.base import Model
from avit_jax.models.functional import Params, abstract, map_paths

_BEHIND_THE_BLOCKS = {"norm", "head", "head_dist"}
# Modules from `functional.stack`, one layer per block.
_STACKED = {"blocks", "policies", "feature_reuse"}


def trainable(model: Model, freeze: Sequence[str]) -> Any:
    """Tree of bools: what the model trains at all and no pattern holds fixed.

    Args:
        model: whose parameters they are.
        freeze: shell patterns on whole paths, such as "patch_embed*" or "blocks.attention.*".

    Raises:
        UserError: a pattern that matches nothing, or patterns that leave nothing to train.
    """
    params = model.abstract_params()
    paths: list[str] = []
    map_paths(lambda path, _: paths.append(path), params)
    for pattern in freeze:
        if not _matches((pattern,), paths):
            raise UserError(
                f"config.optim.freeze has {pattern!r}, which matches no parameter: there are "
                f"{', '.join(_parts(paths))}; write such as 'blocks.attention.*' or 'patch_embed*'."
            )
    free = map_paths(lambda path, _: not _matches(freeze, [path]), params)
    found = jax.tree.map(lambda own, kept: own and kept, model.trainable(params), free)
    if not any(jax.tree.leaves(found)):
        raise UserError(
            f"config.optim.freeze {tuple(freeze)} holds every parameter fixed: leave out a pattern."
        )
    return found


def held_fixed(params: Params, freeze: Sequence[str]) -> Params:
    """The same parameters, of which those that a pattern matches get no gradient to compute."""

    def hold(path: str, leaf: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(leaf) if _matches(freeze, [path]) else leaf

    return map_paths(hold, params) if freeze else params


def rate_factors(model: Model, decay: float) -> Any:
    """Factors on the learning rate: `decay` to the number of layers above, as in BEiT.

    Classifier, last norm and what a method has beside its backbone count as the top layer, which
    keeps the rate; what makes tokens of pixels, with positions, as the layer under the first block
    (arXiv 2106.08254, appendix; layer_decay of its code and timm's).

    Args:
        model: whose parameters they are.
        decay: from 0, with which the top layer alone learns, to 1.

    Returns:
        Tree of float32 factors: `[L, 1, ...]` for the blocks, whose parameters are stacked on a
        leading layer axis, numbers for all others.
    """
    depth, backbone = model.shape.depth, abstract(model.shape.build)
    of_blocks = decay ** np.arange(depth, 0, -1, dtype=np.float32)

    def factor(path: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        names = path.split(".")[:2]  # of a cascade, the network in front
        part = next((name for name in names if name in backbone), names[0])
        if part == "blocks":
            return of_blocks.reshape(depth, *(1,) * (leaf.ndim - 1))
        in_front = part in backbone and part not in _BEHIND_THE_BLOCKS
        return np.float32(decay ** (depth + 1) if in_front else 1.0)

    return map_paths(factor, model.abstract_params())


def stacked(model: Model) -> Any:
    """Tree of bools: parameters that hold those of several layers, on a leading axis.

    Args:
        model: whose parameters they are; of a method elsewhere those of the backbone's blocks.
    """
    return map_paths(
        lambda path, _: not _STACKED.isdisjoint(path.split(".")[:2]), model.abstract_params()
    )


def _matches(patterns: Sequence[str], paths: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns for path in paths)


def _parts(paths: Sequence[str]) -> list[str]:
    """The first two names of each path, without the leaf's: short enough for a sentence."""
    modules = (path.split(".")[:-1] or [path] for path in paths)
    return sorted({".".join(names[:2]) for names in modules})
