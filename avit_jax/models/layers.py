"""What blocks are made of: sizes, linear layers, the MLP, dropout and stochastic depth.

Nothing keeps random state: what draws takes a key, and does nothing without one.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from avit_jax.models.norms import NORM_EPS
from avit_jax.models.positions import PositionEncoding

NO_POSITIONS = PositionEncoding()
# Variance 1 / inputs keeps signals at their size whatever the width; DeiT's fixed 0.02 is far below
# that for narrow models (docs/results.md has what was measured at width 48).
_weights = nnx.initializers.lecun_normal()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Sizes of one block; `dtype` is the dtype of its arithmetic, parameters are float32.

    `extra_dim` channels may be joined to the MLP's normalised input (feature reuse in cascades).
    `attention_scale` is the factor on attention scores; `(embed_dim / num_heads) ** -0.5` if unset.
    `fused_attention` takes cuDNN's kernel, see `fused_attention.py`. `attention` is one of
    `attention_kinds.KINDS`, `qk_norm` normalises queries and keys, and `layer_scale` is what each
    channel of an update is multiplied by at first, see `layer_gain`. `mixer` is what the first half
    is, "attention", or "mlp" over `num_tokens` slots with `token_mlp_ratio` times `embed_dim`
    hidden units.
    """

    embed_dim: int
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    extra_dim: int = 0
    dropout_rate: float = 0.0
    norm: str = "layernorm"
    norm_eps: float = NORM_EPS
    attention: str = "dot"
    attention_scale: float | None = None
    qk_norm: bool = False
    layer_scale: float | None = None
    fused_attention: bool = False
    position_encoding: PositionEncoding = NO_POSITIONS
    mixer: str = "attention"
    token_mlp_ratio: float = 0.5
    num_tokens: int | None = None
    dtype: DTypeLike = jnp.float32

    @property
    def mlp_dim(self) -> int:
        """Hidden width of the MLP."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def token_mlp_dim(self) -> int:
        """Hidden width of an MLP over tokens."""
        return max(1, int(self.embed_dim * self.token_mlp_ratio))


def linear(
    inputs: int,
    outputs: int,
    *,
    use_bias: bool = True,
    dtype: DTypeLike,
    result: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear layer with weights of variance 1 / inputs (truncated normal) and zero bias.

    What it multiplies is of `dtype`, and so is what comes out unless `result` says otherwise.
    """
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=use_bias,
        kernel_init=_weights,
        dtype=dtype,
        preferred_element_type=result,
        rngs=rngs,
    )


def dropout(x: Array, rate: float | Array, key: Array | None) -> Array:
    """Zero entries of `x` with probability `rate` and rescale the rest; nothing without a key."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0).astype(x.dtype)


def drop_path(update: Array, rate: float | Array, kept: Array) -> Array:
    """Stochastic depth (arXiv 1603.09382): drop an image's whole update, as the draws say.

    Args:
        update: of tokens or rows.
        rate: probability with which an image's update is dropped; those kept are larger by it.
        kept: bool, of the update's shape or one that broadcasts to it.
    """
    return jnp.where(kept, update / (1.0 - rate), 0.0).astype(update.dtype)


def gated(x: Array, gate: Array) -> Array:
    """`x` where the gate is open and 0 where it is shut, which broadcasts to the shape of `x`.

    A bool gate lets nothing through where it is shut, not even NaN, as if it had never been
    computed. Numbers, 0 to 1, are factors that carry gradient, also of what they shut out.
    """
    return jnp.where(gate, x, 0) if gate.dtype == bool else x * gate.astype(x.dtype)


def gelu(x: Array) -> Array:
    """The exact GELU with `erf`, cheaper on CPU than with `erfc`; float32 inside for bfloat16."""
    wide = x.astype(jnp.float32)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * 0.5**0.5))).astype(x.dtype)


def layer_gain(shape: BlockShape) -> nnx.Param | None:
    """LayerScale (CaiT, arXiv 2103.17239): a factor `[D]` on each channel of a half's update.

    It starts at `layer_scale`, small in deep networks; `None` where there is none.
    """
    if shape.layer_scale is None:
        return None
    return nnx.Param(jnp.full(shape.embed_dim, shape.layer_scale, jnp.float32))


def scaled(update: Array, gain: nnx.Param | None) -> Array:
    """An update `[..., D]` times the factor of each channel, if there are any."""
    return update if gain is None else update * gain[...].astype(update.dtype)


class Mlp(nnx.Module):
    """Two linear layers around the exact (erf) GELU."""

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        inputs = shape.embed_dim + shape.extra_dim
        self.fc1 = linear(inputs, shape.mlp_dim, dtype=shape.dtype, rngs=rngs)
        self.fc2 = linear(shape.mlp_dim, shape.embed_dim, dtype=shape.dtype, rngs=rngs)
        self.gamma = layer_gain(shape)

    def __call__(self, x: Array, *, units: Array | None = None) -> Array:
        """`[B, N, D (+ extra)]` to `[B, N, D]`; `units` `[B, hidden]` are gates in the middle."""
        hidden = self.fc1(x)
        if units is not None:
            hidden = gated(hidden, units[:, None, :])
        return scaled(self.fc2(gelu(hidden)), self.gamma)


def hidden_heads(hidden: int, num_heads: int) -> np.ndarray:
    """The head that each hidden unit of an MLP belongs to where heads take hidden units along."""
    return np.arange(hidden) * num_heads // hidden
