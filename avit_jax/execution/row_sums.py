"""Sums over the rows of each image of a batch, for models that average their patches."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from avit_jax.execution.gathered_rows import gather
from avit_jax.execution.layout import Layout, as_tokens, slots
from avit_jax.models import image_rows


def weighted_sums(rows: Array, weights: Array, counted: Array, layout: Layout) -> Array:
    """Of each image the weighted sum of its tokens' rows, `[B, D]` float32.

    Rows that do not count add nothing, whatever lies there; not even NaN comes through.

    Args:
        rows: `[R, D]`.
        weights: `[B, N]` float32, of the tokens.
        counted: `[B, N]` bool, tokens that count, all of which have a row.
        layout: of the rows.
    """
    if layout.aligned is not None and not layout.whole:
        slot, places = slots(layout)
        here = (slot == places) & (counted & layout.held)[:, :, None]
        weights, counted = jnp.where(here, weights[:, :, None], 0).sum(1), here.any(1)
        tokens = _images(rows, layout, len(places))
    else:
        tokens = as_tokens(rows, layout)
    weighted = weights[:, :, None] * tokens.astype(jnp.float32)
    return jnp.where(counted[:, :, None], weighted, 0).sum(1)


def _images(rows: Array, layout: Layout, length: int) -> Array:
    """Of an aligned layout the rows of each image, `[B, length, D]`: whole tiles are moved."""
    batch, align = len(layout.held), image_rows.ALIGN
    tiles, each = rows.reshape(-1, align, rows.shape[1]), length // align
    first, lengths = (part // align for part in (layout.aligned[0], layout.aligned[1] + align - 1))
    order = jnp.arange(each, dtype=jnp.int32)
    source = jnp.clip(first[:, None] + order, 0, len(tiles) - 1).reshape(-1)
    found = (order < lengths[:, None]).reshape(-1)
    image, kept = layout.image[::align], layout.exists[::align]
    target = image * each + jnp.arange(len(tiles), dtype=jnp.int32) - first[image]
    target = jnp.clip(target, 0, batch * each - 1)
    return gather(tiles, source, found, target, kept).reshape(batch, length, -1)
