"""What the `forward` of every method begins with: its call, the tokens, what differs by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from avit_jax.models.layers import dropout
from avit_jax.models.shape import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowCapacities:
    """What a training on live rows alone runs on, see `Model.check_learns_on_rows`.

    Attributes:
        capacities: rows of each layer for the images of one device; they do not rise.
        mesh: devices that the images are split over; each packs its own.
    """

    capacities: tuple[int, ...]
    mesh: Mesh


HANDED_OVER = ("states", "relations")


@struct.dataclass(kw_only=True)
class Reused:
    """What the blocks of a later exit of a cascade get from the exit before (`models/reuse.py`).

    Attributes:
        extra: `[L, B, N, context]`, joined to the MLP's input of each block, or `None`.
        bias: `[L, B, H, N, N]`, added to the attention scores of each block, or `None`.
    """

    extra: Array | None = None
    bias: Array | None = None


@struct.dataclass(kw_only=True)
class Call:
    """The arguments of one `Model.apply` that a method's `forward` may look at.

    Attributes:
        train: dropout, stochastic depth and a method's own draws are on.
        key: randomness of this call, or `None`.
        noise: a method's random draws given from outside (parity tests), or `None`.
        progress: share of the training that is done, 0..1, for methods that change while they
        learn.
        dense: run everything, with the same weights.
        features: also return every block's output as `aux["features"]` `[L, B, N, D]`.
        rows: run live tokens alone, in so many rows, or `None`.
        reused: what an earlier exit of a cascade hands over, made ready for this network, or
            `None`.
        shown: of `HANDED_OVER`, what a later exit wants as `aux["states"]` `[B, N, D]`, tokens
            behind the last block that they ran in, and as `aux["relations"]` `[L, B, H, N, N]`,
            attention scores with what was added to them, in the dtype of the arithmetic; 0 where a
            token, head or half did not run (`relations`).
    """

    train: bool = struct.field(pytree_node=False, default=False)
    dense: bool = struct.field(pytree_node=False, default=False)
    features: bool = struct.field(pytree_node=False, default=False)
    rows: RowCapacities | None = struct.field(pytree_node=False, default=None)
    shown: tuple[str, ...] = struct.field(pytree_node=False, default=())
    key: Array | None = None
    noise: Any = None
    progress: Array | float = 1.0
    reused: Reused | None = None


def embed(network: Any, images: Array, call: Call, *, dtype: DTypeLike | None = None) -> Array:
    """Tokens `[B, N, D]` of a batch, with dropout on them in training; see `Backbone.embed`."""
    depth, key = network.shape.depth, call.key
    drawn = None if key is None else jax.random.fold_in(key, depth + 1)
    tokens = network.embed(images, drawn, dtype=dtype)
    rate = network.shape.dropout_rate
    if key is None or not rate:
        return tokens
    return dropout(tokens, rate, jax.random.fold_in(key, depth))


def relations(
    scores: Array, tokens: Array, dtype: DTypeLike, *, heads: Array | None = None
) -> Array:
    """What one block of a method that leaves work out shows as relations, `[B, H, N, N]`.

    Args:
        scores: `[B, H, N, N]`, of all tokens and heads.
        tokens: `[B, N]` bool, those that attended; scores of others count as 0, whether they ask
            or are asked.
        dtype: of the arithmetic.
        heads: `[B, H]` bool, those that ran; all by default.
    """
    ran = tokens[:, None, :, None] & tokens[:, None, None, :]
    if heads is not None:
        ran = ran & heads[:, :, None, None]
    return jnp.where(ran, scores, 0).astype(dtype)


def layer_inputs(shape: Shape, call: Call) -> dict[str, Any]:
    """What differs between layers, as data for `scan_layers`: index, drop_path_rate, key.

    In a later exit of a cascade `extra` and `bias`, too.
    """
    index = jnp.arange(shape.depth)
    inputs = {
        "index": index,
        "drop_path_rate": jnp.asarray(shape.drop_path_rates()),
    }
    if call.key is not None and (shape.drop_path_rate or shape.dropout_rate):
        inputs["key"] = jax.vmap(lambda i: jax.random.fold_in(call.key, i))(index)
    if call.reused is not None:
        inputs |= {"extra": call.reused.extra, "bias": call.reused.bias}
    return inputs
