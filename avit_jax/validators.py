"""What settings may be: each function refuses attributes of some settings with one sentence.

    positive(self, "temperature")   # temperature is -1.0: write a number above 0.

`settings` is a dataclass or a section of a config, `prefix` stands before its names in messages,
and what is `optional` may be `None`. Arrays of JAX pass unseen: the dial hands over traced values,
which nobody can look at.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax

from avit_jax.errors import UserError


def finite(settings: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError unless these are finite numbers."""
    _require(math.isfinite, "a finite number", settings, names, prefix)


def positive(settings: Any, *names: str, prefix: str = "", optional: bool = False) -> None:
    """Raises UserError unless these are finite numbers above 0."""
    _require(
        lambda value: 0 < value < math.inf, "a number above 0", settings, names, prefix, optional
    )


def not_negative(settings: Any, *names: str, prefix: str = "", optional: bool = False) -> None:
    """Raises UserError unless these are finite numbers from 0."""
    _require(lambda value: 0 <= value < math.inf, "0 or more", settings, names, prefix, optional)


def at_least(
    lowest: int, settings: Any, *names: str, prefix: str = "", optional: bool = False
) -> None:
    """Raises UserError unless these are finite numbers from `lowest`."""

    def valid(value: Any) -> bool:
        return lowest <= value < math.inf

    _require(valid, f"at least {lowest}", settings, names, prefix, optional)


def between(
    lowest: float,
    highest: float,
    settings: Any,
    *names: str,
    prefix: str = "",
    optional: bool = False,
) -> None:
    """Raises UserError unless these are numbers from `lowest` to `highest`."""
    wanted = f"a number from {lowest:,} to {highest:,}"
    _require(lambda value: lowest <= value <= highest, wanted, settings, names, prefix, optional)


def sizes(settings: Any, *names: str, prefix: str = "", highest: int = 2**31 - 1) -> None:
    """Raises UserError unless these are `None`, or whole numbers from 1, one or several."""
    for name in names:
        value = getattr(settings, name)
        several = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        for one in () if value is None else several:
            if isinstance(one, bool) or not isinstance(one, int) or not 1 <= one <= highest:
                wanted = f"whole numbers from 1 to {highest:,}"
                raise _refusal(f"{prefix}{name}", value, wanted, optional=True)


def share(settings: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError unless these are numbers from 0 to 1."""
    _require(lambda value: 0 <= value <= 1, "a share, from 0 to 1", settings, names, prefix)


def share_below_one(settings: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError unless these are numbers from 0 that are below 1."""
    wanted = "a share, at least 0 and below 1"
    _require(lambda value: 0 <= value < 1, wanted, settings, names, prefix)


def between_zero_and_one(settings: Any, *names: str, prefix: str = "") -> None:
    """Raises UserError unless these are numbers above 0 and below 1."""
    wanted = "a number above 0 and below 1"
    _require(lambda value: 0 < value < 1, wanted, settings, names, prefix)


def one_of(
    words: Sequence[str | bool],
    settings: Any,
    *names: str,
    prefix: str = "",
    optional: bool = False,
) -> None:
    """Raises UserError unless these are among some words."""
    for name in names:
        value = getattr(settings, name)
        if value not in words and not (optional and value is None):
            raise _refusal(
                f"{prefix}{name}", value, f"one of {', '.join(map(str, words))}", optional
            )


def _require(
    valid: Callable[[Any], bool],
    wanted: str,
    settings: Any,
    names: Sequence[str],
    prefix: str,
    optional: bool = False,
) -> None:
    for name in names:
        value = getattr(settings, name)
        if isinstance(value, jax.Array) or (optional and value is None):
            continue
        if not (isinstance(value, numbers.Real) and valid(value)):
            raise _refusal(f"{prefix}{name}", value, wanted, optional)


def _refusal(name: str, value: Any, wanted: str, optional: bool) -> UserError:
    otherwise = ", or leave it out" if optional else ""
    return UserError(f"{name} is {value!r}: write {wanted}{otherwise}.")
