"""What a method says of execution="static": its buffers of fixed size, and their costs."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from jax import Array

from avit_jax.errors import UserError
from avit_jax.methods.parameters import Parameterized
from avit_jax.types import Output, Usage


@dataclasses.dataclass(frozen=True)
class StaticBuffers(Parameterized):
    """The part of a method's contract that is about buffers whose sizes a plan gives.

    They hold rows of tokens, or whole images; which of the two, `static_most` says.

    Attributes:
        tokens_return: whether tokens that a layer leaves out may be live in later ones; then each
            buffer has a size of its own, else they never grow.
    """

    tokens_return: ClassVar[bool] = False

    @property
    def static_parts(self) -> int:
        """Buffers whose sizes a plan gives; 0 where there is no execution="static".

        One for each layer, for each half of a layer, or for each exit of a cascade behind the
        first.
        """
        return 0

    @property
    def static_most(self) -> int:
        """The most that one image can want in a buffer: rows for its tokens, or 1, for itself."""
        return self.shape.num_tokens

    def static(
        self, network: Any, images: Array, exists: Array, capacities: tuple[int, ...]
    ) -> Output:
        """As `compact`, for a whole batch, in buffers of fixed size; only where `static_parts`.

        Args:
            network: the bound backbone.
            images: `[B, H, W, 3]`, normalised.
            exists: `[B]` bool; False for images that only fill up the batch.
            capacities: of each buffer, rows or images; at most `B * static_most`.

        Returns:
            `logits`, `usage` and `fits`.
        """
        raise UserError(f'{self.name} has no execution="static": use "masked".')

    def static_work(self, usage: tuple[Usage, ...]) -> Array:
        """What each image wants in each buffer, `[static_parts, B]`, by what ran."""
        raise UserError(f'{self.name} has no execution="static": use "masked".')

    def static_gmacs(self, usage: tuple[Usage, ...], capacities: tuple[int, ...]) -> float:
        """Multiply-adds that static execution runs for a batch on one device, in 1e9."""
        raise UserError(f'{self.name} has no execution="static": use "masked".')
