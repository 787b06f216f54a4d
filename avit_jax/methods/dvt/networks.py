"""The networks of a cascade as one module."""

from __future__ import annotations

from collections.abc import Sequence

from flax import nnx

from avit_jax.methods.base import Model
from avit_jax.models import reuse


class Networks(nnx.Module):
    """One network for each exit, `exit1`, `exit2`, ...; later ones with what makes reuse ready."""

    def __init__(self, exits: Sequence[Model], *, rngs: nnx.Rngs):
        for name, model in zip(self.names(exits), exits, strict=True):
            network = model.build(rngs)
            if model.shape.reuse is not None:
                reuse.add(network, model.shape, rngs=rngs)
            setattr(self, name, network)

    @staticmethod
    def names(exits: Sequence[Model]) -> list[str]:
        """What the networks are called, the coarsest first."""
        return [f"exit{number}" for number in range(1, len(exits) + 1)]

    def exit(self, index: int) -> nnx.Module:
        """The network of an exit, counted from 0."""
        return getattr(self, f"exit{index + 1}")
