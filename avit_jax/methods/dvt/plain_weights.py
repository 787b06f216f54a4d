"""Every exit of a cascade started from the weights of one plain network.

What depends on the grid is resized: kernels over windows by pseudo-inverse, learnt positions by
interpolation; fixed ones are computed. Where an exit's MLPs have more inputs, the new columns are
0, and so is the last layer of relation reuse; other modules of reuse start fresh, always the same.
So the first exit, and each without reuse, starts as the plain network on its grid.
"""

from __future__ import annotations

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avit_jax.errors import UserError
from avit_jax.methods.dvt.networks import Networks
from avit_jax.models.functional import Params, map_paths
from avit_jax.models.grid_resize import resize_kernel
from avit_jax.models.shape import Shape
from avit_jax.pretrained.resize import positions_for

_logger = logging.getLogger(__name__)
_EXTRA = ("blocks.norm2.scale", "blocks.norm2.bias", "blocks.mlp.fc1.kernel")


def start(model: Any, plain: Params) -> Params:
    """Parameters of a cascade from those of its `inner` on the cascade's `shape`, as NumPy's.

    Args:
        model: the cascade.
        plain: of `inner` with the sizes of `model.shape`.
    """
    if model.shape.tokens_keep_slots:
        raise UserError(
            "exits of a cascade with mixer 'mlp' have other numbers of tokens, to which an MLP "
            "over tokens cannot be resized: train them from fresh weights."
        )
    _logger.warning(
        "every exit starts from the weights of one network, and what is reused from fresh ones: "
        "train them."
    )
    flat: dict[str, np.ndarray] = {}
    map_paths(lambda path, leaf: flat.update({path: np.asarray(leaf)}), plain)
    fresh = model.init(jax.random.key(0))
    return {
        name: map_paths(
            lambda path, leaf, shape=one.shape: jnp.asarray(
                _leaf(path, np.asarray(leaf), flat.get(path), model.shape, shape)
            ),
            fresh[name],
        )
        for name, one in zip(Networks.names(model.exits), model.exits, strict=True)
    }


def _leaf(
    path: str, fresh: np.ndarray, plain: np.ndarray | None, given: Shape, shape: Shape
) -> np.ndarray:
    """One parameter of an exit of `shape`, from that of a network of `given`, if it has it."""
    if plain is None:
        return np.zeros_like(fresh) if path.startswith("relation_reuse.conv2") else fresh
    if plain.shape == fresh.shape:
        return plain
    if path == "pos_embed":
        return positions_for(plain, shape, shape.num_prefix_places)
    if path in _EXTRA:
        result = np.array(fresh)
        result[:, : plain.shape[1]] = plain
        if path.endswith("kernel"):
            result[:, plain.shape[1] :] = 0
        return result
    return _windows(path, plain, len(fresh), given)


def _windows(path: str, plain: np.ndarray, inputs: int, given: Shape) -> np.ndarray:
    """Weights over the pixels of a window `[pixels, ...]`, for windows of so many `inputs`."""
    module, rest = path.rpartition(".")[0], plain.shape[1:]
    colours_last = module in given.convolutions
    side, size = (round((pixels / 3) ** 0.5) for pixels in (len(plain), inputs))
    order = (side, side, 3) if colours_last else (3, side, side)
    image = plain.reshape(*order, *rest)
    image = image if colours_last else np.moveaxis(image, 0, 2)
    if "norm" in module:  # acts on each pixel by itself
        image = np.asarray(jax.image.resize(image, (size, size, *image.shape[2:]), "linear"))
    else:
        image = resize_kernel(image, size)
    image = image if colours_last else np.moveaxis(image, 2, 0)
    return image.reshape(inputs, *rest)
