"""Which tokens a sequence has beside its patches, and which of them the classifiers read.

A sequence begins with the class tokens; then come the distillation token, the registers and the
patches, row by row.
"""

from __future__ import annotations

import abc
import dataclasses

from avit_jax import validators
from avit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(abc.ABC):
    """The tokens of a backbone: the part of `Shape` that is about them.

    Attributes:
        num_class_tokens: learnt tokens that gather what the classifier reads; 0 only with
          `pool="avg"`.
        class_token_merge: what becomes of several: their "mean" or their "sum" behind the last
          norm.
        distilled: whether there is a distillation token with a head of its own; logits are then the
          mean of both heads.
        num_registers: further learnt tokens, which nothing reads (arXiv 2309.16588); they have no
          positions.
        pool: what the classifier reads: the class "token", or "avg", the mean of the patches behind
          the last block, of which the last norm is then taken (timm's `fc_norm`).
        pos_embed_prefix: whether a table of positions has places for class and distillation
          tokens, too; DeiT-III's has not (timm's `no_embed_class`).
    """

    num_class_tokens: int = 1
    class_token_merge: str = "mean"
    distilled: bool = False
    num_registers: int = 0
    pool: str = "token"
    pos_embed_prefix: bool = True

    @property
    @abc.abstractmethod
    def grid(self) -> int:
        """Patches along each side of the image."""

    @property
    def num_answer_tokens(self) -> int:
        """Class tokens and distillation token: those that classifiers read, unless they average."""
        return self.num_class_tokens + self.distilled

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: class tokens, distillation token, registers."""
        return self.num_answer_tokens + self.num_registers

    @property
    def num_tokens(self) -> int:
        """Tokens N in all."""
        return self.num_prefix_tokens + self.grid**2

    @property
    def num_prefix_places(self) -> int:
        """Places of a table of positions in front of those of the patches; registers have none."""
        return self.num_answer_tokens if self.pos_embed_prefix else 0

    @property
    def num_positions(self) -> int:
        """Places of a table of positions."""
        return self.num_prefix_places + self.grid**2

    @property
    def averages(self) -> bool:
        """Whether the classifier reads the mean of the patches."""
        return self.pool == "avg"

    @property
    def read(self) -> slice:
        """The tokens that classifiers read: an image is finished when they are."""
        return (
            slice(self.num_prefix_tokens, None) if self.averages else slice(self.num_answer_tokens)
        )

    @property
    def num_last_tokens(self) -> int:
        """Tokens at the front of a sequence that inference computes in the last block."""
        return self.num_tokens if self.averages else self.num_answer_tokens

    @property
    def num_read(self) -> int:
        """Vectors `Backbone.readout` takes of an image: those of the tokens, or their mean."""
        return 1 if self.averages else self.num_answer_tokens

    def check_tokens(self) -> None:
        """Raises UserError for tokens that make no sense together."""
        validators.at_least(0, self, "num_class_tokens", "num_registers")
        validators.one_of(("mean", "sum"), self, "class_token_merge")
        validators.one_of(("token", "avg"), self, "pool")
        validators.one_of((True, False), self, "pos_embed_prefix")
        if not self.num_class_tokens and not self.averages:
            raise UserError(
                "num_class_tokens is 0, but the classifier reads the class token: set pool to avg, "
                "or num_class_tokens to 1 or more."
            )
        if self.averages and self.distilled:
            raise UserError(
                "pool is avg, but a distilled model reads its class and distillation tokens: set "
                "distilled to False, or pool to token."
            )
