"""Multiply-adds of a forward pass: the one place that knows what each part costs.

One multiply-add counts once, as in the papers' "FLOPs"; only matrix products and attention count,
not norms, activations or what decides (halting arithmetic, policies), which is well under 1 %.
DeiT-T / S / B at 224 px come out as 1.254 / 4.599 / 17.56 GMACs, the published 1.3 / 4.6 / 17.6.
What compiled programs compute beyond that, each execution says (`Execution.executed_gmacs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from avit_jax.models.image_rows import aligned
from avit_jax.models.norms import is_over_tokens
from avit_jax.models.shape import Shape
from avit_jax.types import Usage

GIGA = 1e9


def embedding(shape: Shape) -> int:
    """Multiply-adds of all in front of the blocks on one image: patches, and what is reused."""
    if shape.reuse is None:
        return shape.embedding_macs
    sizes = {name: getattr(shape, name) for name in ("grid", "embed_dim", "depth", "num_heads")}
    return shape.embedding_macs + shape.reuse.macs(prefix=shape.num_prefix_tokens, **sizes)


def resizing_beyond(shape: Shape) -> int:
    """Multiply-adds on one image that programs run in front of the blocks beyond `embedding`."""
    if shape.reuse is None:
        return 0
    sizes = {name: getattr(shape, name) for name in ("grid", "depth", "num_heads")}
    return shape.reuse.macs_beyond(prefix=shape.num_prefix_tokens, **sizes)


def readout(shape: Shape) -> int:
    """Multiply-adds of the classifier heads on one image."""
    return (1 + shape.distilled) * shape.embed_dim * shape.num_classes


def mixing(shape: Shape, queries: Array | int, keys: Array | int) -> Array | float:
    """Multiply-adds with which attention mixes values, of one block and all heads together.

    All that is not the same for each token (`4 D^2` of the linear layers): of softmax attention
    scores and mean, `2 D` for each pair of query and key.

    Args:
        shape: of the model.
        queries: tokens that ask.
        keys: tokens that they ask, of a shape that broadcasts with it.
    """
    head_dim = shape.embed_dim // shape.num_heads
    count = shape.kind_of_attention.macs
    return count(queries, keys, embed_dim=shape.embed_dim, head_dim=head_dim)


def attention(
    shape: Shape, tokens: Array | int, heads: Array | float = 1.0, effect: str = "channels"
) -> Array | float:
    """Multiply-adds of the attention half of one block, or of the MLP over tokens in its place.

    Args:
        shape: of the model.
        tokens: number of live tokens, of any shape.
        heads: share of the heads that ran, 0..1.
        effect: what dropping a head leaves out, see `Usage.head_effect`. With "attention" its
            values and its part of the output projection are still computed.
    """
    dim = shape.embed_dim
    if shape.tokens_keep_slots:
        return 2.0 * tokens * shape.block.token_mlp_dim * dim
    projected = 2.0 + 2.0 * heads if effect == "attention" else 4.0 * heads
    return projected * tokens * dim * dim + mixing(shape, tokens, tokens) * heads


def mlp(
    shape: Shape, tokens: Array | int, heads: Array | float = 1.0, effect: str = "channels"
) -> Array | float:
    """Multiply-adds of the MLP half of one block; arguments as of `attention`."""
    hidden = shape.block.mlp_dim
    # Of the kept heads' channels, of others joined to them, and of the way back.
    kept = heads if effect == "channels" else 1.0
    units = heads if effect == "hidden" else 1.0
    inputs = kept * shape.embed_dim + shape.block.extra_dim
    return tokens * hidden * units * (inputs + shape.embed_dim)


def per_layer(shape: Shape, usage: Usage) -> Array:
    """Multiply-adds of each block for each image, `[L, B]` float32."""
    tokens = usage.tokens.sum(-1).astype(jnp.float32)
    fed = shape.num_tokens * (tokens > 0) if usage.every_token_in_mlp else tokens
    heads, some = _heads(usage)
    attend = attention(shape, tokens, heads, usage.head_effect) * some
    feed = mlp(shape, fed, heads, usage.head_effect) * some
    if usage.halves is not None:
        attend = attend * usage.halves[:, :, 0]
        feed = feed * usage.halves[:, :, 1]
    return attend + feed


def _heads(usage: Usage) -> tuple[Array | float, Array | float]:
    """Share of the heads that ran, and whether a half has anything to multiply, `[L, B]` each.

    A half without any head only adds its biases, a vector that is the same for all images.
    """
    if usage.heads is None:
        return 1.0, 1.0
    share = usage.heads.astype(jnp.float32).mean(-1)
    return share, 1.0 if usage.head_effect == "attention" else share > 0


def gmacs(shape: Shape, usage: Usage) -> Array:
    """Multiply-adds of each image, embedding to head, `[B]` float32 in units of 1e9."""
    fixed = embedding(shape) + readout(shape)
    return (per_layer(shape, usage) / GIGA).sum(0) + fixed / GIGA


def stages_gmacs(
    shapes: Sequence[Shape],
    usage: Sequence[Usage],
    count: Callable[[Shape, Usage], Array | np.ndarray] = gmacs,
) -> Array | np.ndarray:
    """The same of networks that run one after the other; see `gmacs_by_stage`."""
    return sum(gmacs_by_stage(shapes, usage, count))


def gmacs_by_stage(
    shapes: Sequence[Shape],
    usage: Sequence[Usage],
    count: Callable[[Shape, Usage], Array | np.ndarray] = gmacs,
) -> list[Array | np.ndarray]:
    """Multiply-adds of each image in each of the networks that run one after the other, `[B]` each.

    A later stage costs nothing for an image that nothing ran for there, as it has left.

    Args:
        shapes: of the networks.
        usage: what ran in each of them.
        count: what one network costs, `gmacs` or `inference_gmacs`.
    """
    first, *later = (count(shape, used) for shape, used in zip(shapes, usage, strict=True))
    came = (used.tokens.any((0, 2)) for used in usage[1:])
    return [first, *(jnp.where(here, cost, 0) for here, cost in zip(came, later, strict=True))]


def dense_gmacs(shape: Shape) -> float:
    """Multiply-adds of one image with nothing skipped, in units of 1e9."""
    blocks = shape.depth * (attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens))
    return (embedding(shape) + blocks + readout(shape)) / GIGA


def last_attention(
    shape: Shape, tokens: Array | int, heads: Array | float = 1.0, effect: str = "channels"
) -> Array | float:
    """Multiply-adds of the last block's attention half in inference; arguments as of `attention`.

    Queries and projection are computed for the tokens alone that are read after it, keys and values
    for all live ones. A norm over an image's tokens asks for it whole.
    """
    if is_over_tokens(shape.norm):
        return attention(shape, tokens, heads, effect)
    wanted, dim = last_tokens(shape, tokens), shape.embed_dim
    if shape.tokens_keep_slots:
        return (tokens + wanted) * shape.block.token_mlp_dim * dim
    keys, values = (heads, 1.0) if effect == "attention" else (heads, heads)
    rows = tokens * (keys + values) + wanted * (heads + values)
    return rows * dim * dim + mixing(shape, wanted, tokens) * heads


def last_block(shape: Shape, tokens: Array | int) -> Array | float:
    """Multiply-adds of the last block in inference, whose MLP is that of tokens that are read."""
    return last_attention(shape, tokens) + mlp(shape, last_tokens(shape, tokens))


def last_tokens(shape: Shape, tokens: Array | int) -> Array | int:
    """Of so many live tokens of an image, those that inference computes in the last block."""
    return tokens if shape.averages else shape.num_answer_tokens


def inference_gmacs(shape: Shape, usage: Usage, layers: int | None = None) -> np.ndarray:
    """Multiply-adds that each image needs in inference, `[B]` in units of 1e9.

    As `gmacs`, but the last block computes only what is read (`last_block`), and nothing for an
    image without live tokens.

    Args:
        shape: of the network.
        usage: of the images.
        layers: that run at all, where the method leaves out those behind.
    """
    blocks = np.array(per_layer(shape, usage), np.float64)
    if shape.averages:  # of every token, so the last block is one as the others
        return (blocks.sum(0) + embedding(shape) + readout(shape)) / GIGA
    final = (len(usage.tokens) if layers is None else layers) - 1
    last = jax.tree.map(lambda array: np.asarray(array[final : final + 1]), usage)
    tokens = last.tokens.sum(-1).astype(np.float64)
    heads, some = _heads(last)
    attend = last_attention(shape, tokens, heads, usage.head_effect) * some
    feed = (tokens > 0) * mlp(shape, shape.num_answer_tokens, heads, usage.head_effect) * some
    if last.halves is not None:
        attend, feed = attend * last.halves[:, :, 0], feed * last.halves[:, :, 1]
    blocks[final : final + 1] = np.asarray((tokens > 0) * (attend + feed))
    return (blocks.sum(0) + embedding(shape) + readout(shape)) / GIGA


def aligned_inference_gmacs(shape: Shape) -> float:
    """What dense inference runs for one image whose rows fill whole tiles, in units of 1e9.

    In the last block there are queries of all rows, and attention is that of one tile of them.
    """
    rows, front, dim = aligned(shape.num_tokens), shape.num_last_tokens, shape.embed_dim
    full = attention(shape, rows) + mlp(shape, rows)
    last = (3.0 * rows + front) * dim * dim + mixing(shape, aligned(front), rows)
    last = attention(shape, rows) if is_over_tokens(shape.norm) else last
    last += mlp(shape, front)
    return (embedding(shape) + (shape.depth - 1) * full + last + readout(shape)) / GIGA


def dense_inference_gmacs(shape: Shape) -> float:
    """Multiply-adds of one image in the best dense inference, in units of 1e9."""
    full = attention(shape, shape.num_tokens) + mlp(shape, shape.num_tokens)
    blocks = (shape.depth - 1) * full + last_block(shape, shape.num_tokens)
    return (embedding(shape) + blocks + readout(shape)) / GIGA
