"""A batch in groups of images, one after the other, and outputs cut and joined by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from avit_jax.types import Output

_LAYERED = ("dropped",)  # of `Output.aux`: images on the second axis


def of_images(output: Output) -> Output:
    """An output without what belongs to no single image, and without training's records.

    `aux["depth"]` of a model of one stage says how many layers each token was executed for.
    """
    aux = {name: output.aux[name] for name in _LAYERED if name in output.aux}
    if len(output.usage) == 1:
        aux["depth"] = output.usage[0].tokens.sum(0, dtype=jnp.float32)
    return output.replace(penalties={}, metrics={}, aux=aux)


def map_images(output: Output, function: Callable[[Any, int], Any]) -> Output:
    """`function(leaf, axis of the images)` on every array of an output of `of_images`."""

    def mapped(leaf: Any, axis: int) -> Any:
        return None if leaf is None else function(leaf, axis)

    return Output(
        logits=function(output.logits, 0),
        usage=jax.tree.map(lambda leaf: function(leaf, 1), output.usage),
        exits=mapped(output.exits, 1),
        fits=mapped(output.fits, 0),
        aux={name: function(leaf, int(name in _LAYERED)) for name, leaf in output.aux.items()},
    )


def in_groups(
    run: Callable[[Array, Array], Output], images: Array, exists: Array, *, most: int
) -> Output:
    """`run(images, exists)` on even groups of at most `most` images, one group after the other.

    Args:
        run: of one group.
        images: `[B, H, W, 3]`.
        exists: `[B]` bool; images that fill up the last group do not.
        most: images of a group.
    """
    batch = images.shape[0]
    groups = -(-batch // most)
    if groups == 1:
        return of_images(run(images, exists))
    size = -(-batch // groups)

    def cut(rows: Array) -> Array:
        padding = ((0, groups * size - batch), *(((0, 0),) * (rows.ndim - 1)))
        return jnp.pad(rows, padding).reshape(groups, size, *rows.shape[1:])

    outputs = jax.lax.map(lambda part: of_images(run(*part)), (cut(images), cut(exists)))

    def join(leaf: Array, axis: int) -> Array:
        leaf = jnp.moveaxis(leaf, 0, axis)
        leaf = leaf.reshape(*leaf.shape[:axis], groups * size, *leaf.shape[axis + 2 :])
        return jax.lax.slice_in_dim(leaf, 0, batch, axis=axis)

    return map_images(outputs, join)


def filled_up(batch_size: int, most: int) -> int:
    """Images that run where a batch is cut into even groups of at most `most`."""
    groups = -(-batch_size // most)
    return groups * -(-batch_size // groups)
