"""Norms of tokens: what a block looks at, by the name that a config gives.

A norm of single tokens is any module `[..., D] -> [..., D]`, so a further one is one function here
and a line in `NORMS`. A norm over an image's tokens needs the statistics of all that are live as
well, which an execution gathers from wherever these tokens lie:

    normalised(norm, rows, statistics)    # of rows, with the statistics of each row's image
    of_images(norm, tokens, live)         # of whole images, statistics included

Both are `norm(tokens)` and nothing else where it is one of single tokens; `statistics` is `None`,
then. All statistics are float32, whatever the dtype of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx, struct
from jax import Array, lax
from jax.typing import DTypeLike

NORM_EPS = 1e-6  # of DeiT and A-ViT


def layer_norm(features: int, *, eps: float, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer normalisation (arXiv 1607.06450)."""
    return nnx.LayerNorm(features, epsilon=eps, dtype=dtype, use_fast_variance=False, rngs=rngs)


def rms_norm(features: int, *, eps: float, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.RMSNorm:
    """Each token over the root of its mean square (arXiv 1910.07467): no mean, no bias."""
    return nnx.RMSNorm(features, epsilon=eps, dtype=dtype, rngs=rngs)


@struct.dataclass(kw_only=True)
class Statistics:
    """Of each channel over the live tokens of an image, `[B, 1, D]` float32 each.

    Attributes:
        mean: of the channel.
        factor: one over its deviation.
    """

    mean: Array
    factor: Array

    def of_rows(self, image: Array) -> Statistics:
        """Those of rows `[R, D]` of the given images `[R]`, `[R, D]` each."""
        return Statistics(mean=self.mean[image, 0], factor=self.factor[image, 0])


class InstanceNorm(nnx.Module):
    """Each channel over the tokens of its image (arXiv 1607.08022), with a learnt scale and bias.

    Only live tokens count, so an image's tokens change with those that have halted. What lies at
    the others is never looked at. An image without live tokens has mean 0 and variance 0.
    """

    def __init__(self, features: int, *, eps: float, dtype: DTypeLike, rngs: nnx.Rngs):
        self.scale = nnx.Param(nnx.initializers.ones(rngs.params(), (features,)))
        self.bias = nnx.Param(nnx.initializers.zeros(rngs.params(), (features,)))
        self.epsilon, self.dtype = eps, dtype

    def statistics(self, tokens: Array, live: Array | None = None) -> Statistics:
        """Of tokens `[B, N, D]`; see the function `statistics`."""
        everything = jnp.ones(tokens.shape[:2], bool)
        counted = (everything if live is None else live > 0)[:, :, None]
        count = jnp.maximum(counted.sum(1, keepdims=True), 1)
        wide = jnp.where(counted, tokens.astype(jnp.float32), 0)
        mean = wide.sum(1, keepdims=True) / count
        away = jnp.where(counted, wide - mean, 0)
        variance = (away * away).sum(1, keepdims=True) / count
        return Statistics(mean=mean, factor=lax.rsqrt(variance + self.epsilon))

    def __call__(self, tokens: Array, statistics: Statistics) -> Array:
        """Tokens `[..., D]`, whose statistics broadcast to them."""
        away = (tokens.astype(jnp.float32) - statistics.mean) * statistics.factor
        return (away * self.scale[...] + self.bias[...]).astype(self.dtype)


NORMS: dict[str, Callable[..., nnx.Module]] = {
    "layernorm": layer_norm,
    "rmsnorm": rms_norm,
    "instancenorm": InstanceNorm,
}


def is_over_tokens(norm: str | nnx.Module) -> bool:
    """Whether a norm, or that of a name, asks what the other tokens of the image are."""
    if isinstance(norm, str):
        return NORMS[norm] is InstanceNorm
    return isinstance(norm, InstanceNorm)


def of_single_tokens(name: str) -> str:
    """The name of a norm for tokens that are read one by one: layer norm instead of instance norm.

    The few tokens that classifiers read would be all the statistics that there are.
    """
    return "layernorm" if is_over_tokens(name) else name


def statistics(norm: nnx.Module, tokens: Array, live: Array | None = None) -> Statistics | None:
    """What a norm has to know of images `[B, N, D]`; `None` where it is one of single tokens.

    Args:
        norm: with its parameters.
        tokens: whole images, or all of their tokens that are left.
        live: `[B, N]`, those above 0 count, as in `Gates.tokens`; all by default.
    """
    return norm.statistics(tokens, live) if is_over_tokens(norm) else None


def normalised(norm: nnx.Module, tokens: Array, known: Statistics | None) -> Array:
    """Tokens `[..., D]` behind a norm; `known` is what `statistics` says of their images."""
    return norm(tokens) if known is None else norm(tokens, known)


def of_images(norm: nnx.Module, tokens: Array, live: Array | None = None) -> Array:
    """Images `[B, N, D]` behind a norm; arguments as of `statistics`.

    Tokens that do not count may come out as anything.
    """
    if live is not None and is_over_tokens(norm):
        # Or something that is not finite there would be no gradient for the statistics.
        tokens = jnp.where((live > 0)[:, :, None], tokens, 0)
    return normalised(norm, tokens, statistics(norm, tokens, live))
