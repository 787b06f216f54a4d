"""A small block with unequal weights, and the same computation written out in NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from avit_jax.models import functional
from avit_jax.models.attention import Attention
from avit_jax.models.block import Block
from avit_jax.models.layers import BlockShape, Mlp

BATCH, TOKENS, DIM, HEADS = 2, 5, 24, 3
SHAPE = BlockShape(embed_dim=DIM, num_heads=HEADS, mlp_ratio=2.0)


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def block_of(**changes) -> Block:
    """Weights large enough, and biases and scales unequal enough, for every path to show."""

    def build(rngs: nnx.Rngs) -> Block:
        return Block(dataclasses.replace(SHAPE, **changes), rngs=rngs)

    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(generator.normal(0.2, 0.3, leaf.shape), leaf.dtype)

    return functional.bind(build, jax.tree.map(draw, functional.abstract(build)))


def both(block: Block, x, **options):
    return block.feed(block.attend(x, **options), **options)


def norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def dense(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def attention_by_hand(attention: Attention, x, *, heads=None, keys=None, bias=None, identity=False):
    """Loops over images and heads.

    Args:
        attention: with its parameters.
        x: normalised tokens.
        heads: factors `[B, H]` on a head's q, k, v and output.
        keys: bool that broadcasts to `[B, N, N]`, whom each token attends to.
        bias: `[B, H, N, N]` on the scores.
        identity: a gated head's attention fades into the identity instead, and nothing else does.
    """
    x = np.asarray(x, np.float64)
    width = DIM // HEADS
    heads = np.ones((len(x), HEADS)) if heads is None else np.asarray(heads)
    out = np.zeros_like(x)
    for image, tokens in enumerate(x):
        query, key, value = np.split(dense(attention.qkv, tokens), 3, axis=-1)
        for head, gate in enumerate(heads[image]):
            part = slice(head * width, (head + 1) * width)
            inside = 1.0 if identity else gate
            scores = (inside * query[:, part]) @ (inside * key[:, part]).T / np.sqrt(width)
            if bias is not None:
                scores = scores + np.asarray(bias)[image, head]
            if keys is not None:
                scores = np.where(np.asarray(keys)[image], scores, -1e30)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            mixed = gate * (shares @ (inside * value[:, part]))
            out[image, :, part] = mixed + identity * (1 - gate) * value[:, part]
    return dense(attention.proj, out)


def mlp_by_hand(mlp: Mlp, x, *, units=1.0):
    """`units` are factors on the hidden units, in front of the activation."""
    hidden = dense(mlp.fc1, np.asarray(x, np.float64)) * units
    erf = np.asarray(jax.scipy.special.erf(hidden / np.sqrt(2.0)))
    return dense(mlp.fc2, hidden * (1 + erf) / 2)
