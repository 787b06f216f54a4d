"""Budgets as they are written on the command line: `0.8`, `2.9gmacs`, `5ms`."""

from __future__ import annotations

import dataclasses
import re

from avit_jax.errors import UserError

_WRITTEN = re.compile(r"(\d+\.?\d*|\.\d+)\s*(gmacs|ms)?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What an image, or for a time a batch, may cost on average.

    Attributes:
        amount: a share of the dense GMACs (0..1), GMACs per image, or milliseconds per batch.
        unit: "share", "gmacs" or "ms".
    """

    amount: float
    unit: str

    @property
    def name(self) -> str:
        """The budget as one writes it; equal budgets have equal names."""
        return f"{self.amount:.10g}{'' if self.unit == 'share' else self.unit}"


def parse_budget(text: str) -> Budget:
    """The budget that a text names.

    Raises:
        UserError: it names none.
    """
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise UserError(
            f"the budget {text!r} is no budget: write a share of the dense GMACs such as 0.8, "
            "GMACs per image such as 2.9gmacs, or milliseconds per batch such as 5ms."
        )
    budget = Budget(float(found[1]), (found[2] or "share").lower())
    if not budget.amount > 0.0 or (budget.unit == "share" and budget.amount > 1.0):
        raise UserError(
            f"the budget {text!r} is out of range: a share of the dense GMACs lies above 0 and is "
            "at most 1; write gmacs or ms behind any other number above 0."
        )
    return budget


def normal_name(text: str) -> str:
    """The name of an operating point as it is stored: `0.80` is `0.8`, other words stay."""
    try:
        return parse_budget(text).name
    except UserError:
        return text.strip()
