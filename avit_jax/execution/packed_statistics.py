"""Statistics of images whose live tokens lie packed, for a norm over an image's tokens.

Once for each half of a block, with the loops of attention: images of like lengths together, each at
the smallest length that holds it. What rows of theirs are normalised with is then a look-up.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from avit_jax.execution.loops import for_images
from avit_jax.execution.packing import Packing
from avit_jax.execution.plan import Plan
from avit_jax.models.norms import Statistics, is_over_tokens


def of_packed(
    norm: nnx.Module,
    rows: Callable[[Array], Array],
    dim: int,
    packing: Packing,
    plan: Plan,
) -> Statistics | None:
    """What a norm has to know of each image, `[B, 1, D]`; `None` for one of single tokens.

    Args:
        norm: with its parameters.
        rows: what it is given, `[..., D]`, in packed rows `[...]`.
        dim: channels D.
        packing: of the live tokens.
        plan: static sizes.
    """
    if not is_over_tokens(norm):
        return None

    def body(images: Array, firsts: Array, length: int, found: Statistics) -> Statistics:
        own = rows(firsts[:, None] + jnp.arange(length, dtype=firsts.dtype))
        live = jnp.arange(length) < packing.counts[images][:, None]
        update = norm.statistics(own, live)
        return jax.tree.map(lambda every, some: every.at[images].set(some), found, update)

    nothing = jnp.zeros((len(packing.counts), 1, dim), jnp.float32)
    empty = Statistics(mean=nothing, factor=nothing)
    return for_images(body, packing.counts, packing.offsets, empty, plan)


def of_rows(known: Statistics | None, image: Array, first: Array, size: int) -> Statistics | None:
    """Those of `size` rows from `first` on, whose images are `image` `[capacity]`."""
    return known and known.of_rows(lax.dynamic_slice(image, (first,), (size,)))
