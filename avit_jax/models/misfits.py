"""Where the arrays that a model wants and those that there are differ, in one short sentence.

A model has thousands of ways to misfit and hundreds of names, of which a person reads three: the
sentence counts what is missing, unknown and misshapen, and gives a few examples of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from avit_jax.errors import UserError

LONGEST = 400  # characters of a message
_EXAMPLES = 3
_NAME_LONGEST = 60
Shapes = Mapping[str, tuple[int, ...]]


def differ(found: Shapes, wanted: Shapes) -> bool:
    """Whether any name is missing, unknown or has another shape."""
    return dict(found) != dict(wanted)


def misfit(subject: str, found: Shapes, wanted: Shapes, advice: str) -> UserError:
    """What to raise where they differ, at most `LONGEST` characters.

    Args:
        subject: of the sentence, for example "these weights do".
        found: shapes by name.
        wanted: likewise, of the model.
        advice: what to do about it, without a full stop.
    """
    for most in range(_EXAMPLES, 0, -1):
        text = f"{subject} not fit the model ({_counted(found, wanted, most)}): {advice}."
        if len(text) <= LONGEST:
            return UserError(text)
    text = f"{subject} not fit the model ({_counted(found, wanted, 0)}): {advice}."
    return UserError(text if len(text) <= LONGEST else f"{text[: LONGEST - 4]}...")


def _counted(found: Shapes, wanted: Shapes, most: int) -> str:
    misshapen = [name for name in wanted if name in found and found[name] != wanted[name]]
    parts = [
        (
            f"of {len(wanted)} names",
            "missing",
            [name for name in wanted if name not in found],
            _name,
        ),
        ("", "unknown", [name for name in found if name not in wanted], _name),
        (
            "",
            "of another shape",
            misshapen,
            lambda name: f"{_name(name)} {found[name]} for {wanted[name]}",
        ),
    ]
    said = []
    for of, what, names, shown in parts:
        if names:
            examples = _different(names, most)
            listed = f": {', '.join(map(shown, examples))}"
            listed += ", ..." if len(names) > len(examples) else ""
            said.append(f"{len(names)} {of + ' ' if of else ''}{what}{listed if most else ''}")
    return "; ".join(said)


def _different(names: Iterable[str], most: int) -> list[str]:
    """The first names that differ by more than the number of a layer."""
    kinds: dict[str, str] = {}
    for name in names:
        kinds.setdefault(re.sub(r"\d+", "0", name), name)
    return list(kinds.values())[:most]


def _name(name: str) -> str:
    if len(name) > _NAME_LONGEST:
        name = f"{name[: _NAME_LONGEST // 2]}...{name[-_NAME_LONGEST // 2 :]}"
    return name if name.isprintable() else ascii(name)
