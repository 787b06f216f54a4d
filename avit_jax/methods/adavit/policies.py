"""Linear policies in front of blocks: which tokens, heads and halves an image needs there."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from avit_jax.models import functional

# Small, so that at the start the bias decides and images differ only a little.
_weights = nnx.initializers.truncated_normal(0.02)

Policy = dict[str, Array]


class Policies(nnx.Module):
    """One linear layer per kind of decision and block, stacked over the last blocks.

    Attributes are named as the kinds ("heads", "layers", "tokens"); a kind that has no policy is
    missing.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        depth: int,
        outputs: dict[str, int],
        first: dict[str, int],
        bias: float,
        rngs: nnx.Rngs,
    ):
        """Fresh policies.

        Args:
            embed_dim: channels of a token.
            depth: blocks L of the backbone.
            outputs: decisions of each kind in one block.
            first: first block, counted from 0, that has each kind.
            bias: initial logit of every decision.
            rngs: randomness.
        """
        self.depth = depth
        self.kinds = tuple(outputs)
        for kind, size in outputs.items():

            def build(rngs: nnx.Rngs, size: int = size) -> nnx.Linear:
                return nnx.Linear(
                    embed_dim,
                    size,
                    kernel_init=_weights,
                    bias_init=nnx.initializers.constant(bias),
                    rngs=rngs,
                )

            setattr(self, kind, functional.stack(build, depth - first[kind], rngs))

    def per_layer(self) -> dict[str, Policy]:
        """Each kind's `kernel` and `bias` for all L blocks, and `decides` `[L]`.

        Blocks without a policy have zeros and False.
        """
        return {kind: self._padded(getattr(self, kind)) for kind in self.kinds}

    def _padded(self, policy: nnx.Linear) -> Policy:
        arrays = {"kernel": policy.kernel[...], "bias": policy.bias[...]}
        missing = self.depth - len(arrays["bias"])
        arrays = jax.tree.map(
            lambda leaf: jnp.pad(leaf, ((missing, 0), *(((0, 0),) * (leaf.ndim - 1)))), arrays
        )
        return arrays | {"decides": jnp.arange(self.depth) >= missing}


def logits(policy: Policy, x: Array) -> Array:
    """Logits `[..., outputs]` of tokens `[..., D]`, float32 whatever the dtype of the tokens."""
    return x.astype(jnp.float32) @ policy["kernel"] + policy["bias"]


def at(policies: dict[str, Policy], layer: int | Array) -> dict[str, Any]:
    """The policies of one block, from `Policies.per_layer`; `layer` may be traced."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False), policies
    )
