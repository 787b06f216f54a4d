"""Feature reuse and relation reuse: an earlier network's last states and scores made ready.

DVT (Wang et al., NeurIPS 2021, arXiv 2105.15075, section 3.2). Relations of all heads and blocks
are `L * H` maps of `N * N` scores for each image, in the dtype of the arithmetic: of DeiT-S behind
10 x 10 tokens 72 maps of 101 x 101, 2.9 MB in float32 and half of that in bfloat16, and what is
made of them for 14 x 14 tokens takes 11 MB (docs/methods.md).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.models import functional
from avit_jax.models.grid_resize import resize_patches, resize_relations
from avit_jax.models.layers import gelu, linear
from avit_jax.models.norms import NORMS
from avit_jax.models.shape import Shape


class FeatureReuse(nnx.Module):
    """One block's small MLP on an earlier network's states, `[B, n, D]` to `[B, n, context]`."""

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs):
        reuse, dtype = shape.reuse, jnp.dtype(shape.dtype)
        self.norm = NORMS[shape.norm](shape.embed_dim, eps=shape.norm_eps, dtype=dtype, rngs=rngs)
        self.fc1 = linear(shape.embed_dim, reuse.context_hidden, dtype=dtype, rngs=rngs)
        self.fc2 = linear(reuse.context_hidden, reuse.context_dim, dtype=dtype, rngs=rngs)

    def __call__(self, states: Array) -> Array:
        return self.fc2(gelu(self.fc1(self.norm(states))))


class RelationReuse(nnx.Module):
    """Two 1 x 1 convolutions over the maps of all heads and blocks, block by block."""

    def __init__(self, shape: Shape, *, rngs: nnx.Rngs):
        maps, dtype = shape.depth * shape.num_heads, jnp.dtype(shape.dtype)
        self.conv1 = linear(maps, 3 * maps, dtype=dtype, rngs=rngs)
        self.conv2 = linear(3 * maps, maps, dtype=dtype, rngs=rngs)

    def __call__(self, relations: Array) -> Array:
        """`[L, B, H, n, n]` to as many."""
        depth, batch, heads, *tokens = relations.shape
        maps = relations.transpose(1, 3, 4, 0, 2).reshape(batch, *tokens, depth * heads)
        maps = self.conv2(gelu(self.conv1(maps)))
        maps = maps.reshape(batch, *tokens, depth, heads)
        return maps.transpose(3, 0, 4, 1, 2)


def add(network: nnx.Module, shape: Shape, *, rngs: nnx.Rngs) -> None:
    """Gives a network of `shape` the modules that its `reuse` asks for, beside its blocks."""
    if shape.reuse.context_dim:
        network.feature_reuse = functional.stack(
            lambda rngs: FeatureReuse(shape, rngs=rngs), shape.depth, rngs
        )
    if shape.reuse.relations:
        network.relation_reuse = RelationReuse(shape, rngs=rngs)


def contexts(network: nnx.Module, shape: Shape, states: Array) -> Array:
    """What is joined to the MLP's input of each block, `[L, B, N, context]`, 0 for prefix tokens.

    Args:
        network: later one, with `feature_reuse`.
        shape: of it.
        states: `[B, n, D]` behind the last block of the earlier one.
    """
    graph, params = nnx.split(network.feature_reuse)
    patches = states[:, shape.num_prefix_tokens :]
    found = jax.vmap(lambda params: nnx.merge(graph, params)(patches))(params)
    found = resize_patches(found, source=shape.reuse.grid, target=shape.grid)
    return jnp.pad(found, ((0, 0), (0, 0), (shape.num_prefix_tokens, 0), (0, 0)))


def biases(network: nnx.Module, shape: Shape, relations: Array) -> Array:
    """What is added to the scores of each block, `[L, B, H, N, N]`.

    Args:
        network: later one, with `relation_reuse`.
        shape: of it.
        relations: `[L, B, H, n, n]` scores of the earlier one.
    """
    return resize_relations(
        network.relation_reuse(relations),
        prefix=shape.num_prefix_tokens,
        source=shape.reuse.grid,
        target=shape.grid,
    )
