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


def compared(attention: Attention, part, normalise, head: int, *, asks: bool):
    """Queries or keys `[N, d]` of a head as they are compared: normalised, of length 1, heated."""
    if normalise is not None:
        part = norm(normalise, part)
    if not hasattr(attention.kind, "logit_scale"):
        return part
    part = part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-6)
    logit_scale = np.asarray(attention.kind.logit_scale[...], np.float64)[head]
    return part * min(100.0, np.exp(logit_scale)) if asks else part


def weights_by_hand(attention: Attention, query, key, bias, keys):
    """What each of `[N, d]` weights the values of each of `[M, d]` by, `[N, M]`."""
    if hasattr(attention.kind, "frequencies"):
        frequencies, phases = (
            np.asarray(part[...], np.float64)
            for part in (attention.kind.frequencies, attention.kind.phases)
        )
        frequencies = frequencies / query.shape[-1] ** 0.25
        query, key = (1 + np.cos(part @ frequencies + phases) for part in (query, key))
        shares = np.zeros((len(query), len(key)))
        for asking, answering in np.ndindex(shares.shape):
            shares[asking, answering] = query[asking] @ key[answering]
        shares = np.where(keys, shares, 0.0)
    else:
        scale = 1.0 if hasattr(attention.kind, "logit_scale") else query.shape[-1] ** -0.5
        scores = np.where(keys, query @ key.T * scale + bias, -1e30)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def gain(half):
    """LayerScale's factors of a half, 1 where it has none."""
    return 1.0 if half.gamma is None else np.asarray(half.gamma[...])


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
            asking = compared(attention, query[:, part], attention.query_norm, head, asks=True)
            asked = compared(attention, key[:, part], attention.key_norm, head, asks=False)
            added = 0.0 if bias is None else np.asarray(bias)[image, head]
            exist = True if keys is None else np.asarray(keys)[image]
            shares = weights_by_hand(attention, inside * asking, inside * asked, added, exist)
            mixed = gate * (shares @ (inside * value[:, part]))
            out[image, :, part] = mixed + identity * (1 - gate) * value[:, part]
    return gain(attention) * dense(attention.proj, out)


def mlp_by_hand(mlp: Mlp, x, *, units=1.0):
    """`units` are factors on the hidden units, in front of the activation."""
    hidden = dense(mlp.fc1, np.asarray(x, np.float64)) * units
    erf = np.asarray(jax.scipy.special.erf(hidden / np.sqrt(2.0)))
    return gain(mlp) * dense(mlp.fc2, hidden * (1 + erf) / 2)
