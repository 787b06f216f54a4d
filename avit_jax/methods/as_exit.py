"""The part of a method's contract that is about cascades: to run as one of their exits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from jax import Array

from avit_jax.execution.plan import Plan
from avit_jax.methods.forward import Call
from avit_jax.methods.streamable import Streamable
from avit_jax.models import costs
from avit_jax.types import Output, Usage


class AsExit(Streamable):
    """What a cascade asks of the method that all of its exits run.

    Attributes:
        packs_exits: whether `compact_exit` leaves out whatever does not run. Then one number of
            images is enough to compile an exit for, because those that do not exist cost little.
    """

    packs_exits: ClassVar[bool] = False

    def compact_exit(
        self, network: Any, images: Array, exists: Array, plan: Plan, call: Call
    ) -> Output:
        """The answers of `forward` in inference, of an exit; by default masked, as there.

        Args:
            network: the bound backbone.
            images: `[B, H, W, 3]`, normalised.
            exists: `[B]` bool; what is said about others means nothing.
            plan: static sizes of this exit.
            call: what the exit is given and what it shows.

        Returns:
            `logits`, `usage`, and in `aux` what `call.shown` names.
        """
        return self.forward(network, images, call)

    def compact_exit_gmacs(self, usage: Usage, plan: Plan, *, shown: Sequence[str]) -> float:
        """Multiply-adds that `compact_exit` runs for so many images, in 1e9.

        Making ready what is handed over counts as `models/costs.py` does.

        Args:
            usage: of the exit, none of images that do not exist.
            plan: its static sizes.
            shown: what the exit hands over.
        """
        return costs.dense_gmacs(self.shape) * usage.tokens.shape[1]
