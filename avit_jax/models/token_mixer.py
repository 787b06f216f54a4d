"""An MLP over the places of an image's tokens, which can stand where attention does in a block."""

from __future__ import annotations

from flax import nnx
from jax import Array

from avit_jax.models.layers import BlockShape, gelu, layer_gain, linear, scaled


class TokenMlp(nnx.Module):
    """Two linear layers around GELU over the tokens of an image (MLP-Mixer, arXiv 2105.01601).

    All channels share them. Each token has a slot, which it keeps: one that is 0 contributes
    nothing, but no other token can take its place.
    """

    def __init__(self, shape: BlockShape, *, rngs: nnx.Rngs):
        slots, hidden = shape.num_tokens, shape.token_mlp_dim
        self.fc1 = linear(slots, hidden, dtype=shape.dtype, rngs=rngs)
        self.fc2 = linear(hidden, slots, dtype=shape.dtype, rngs=rngs)
        self.gamma = layer_gain(shape)

    def __call__(self, x: Array, *, first: int | None = None) -> Array:
        """Normalised tokens `[B, N, D]`, 0 where there is none, to their updates.

        Args:
            x: in their slots.
            first: only the updates of so many first tokens are wanted.
        """
        hidden = gelu(self.fc1(x.swapaxes(1, 2)))
        kernel, bias = self.fc2.kernel[...][:, :first], self.fc2.bias[...][:first]
        update = hidden @ kernel.astype(hidden.dtype) + bias.astype(hidden.dtype)
        return scaled(update.swapaxes(1, 2), self.gamma)
