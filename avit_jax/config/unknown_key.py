"""What to say to somebody who wrote a key that no config has."""

from __future__ import annotations

import difflib

from avit_jax import zoo
from avit_jax.config import settings
from avit_jax.config.model import declared

_CLOSE = 0.6  # of two names, as difflib counts it
_LIST = "python -m avit_jax.settings_table prints all there are, which is docs/configuration.md"


def unknown_key(key: str) -> str:
    """One sentence, with the key that was probably meant: one of any section, if any is alike."""
    meant = nearest_key(key)
    advice = f"did you mean {meant!r}? (" if meant else ""
    return f"the config has no key {key!r}: {advice}{_LIST}{')' if meant else ''}."


def nearest_key(key: str) -> str | None:
    """The key of all configs that is most like another; `None` where none is.

    People forget or mistake the section more often than the name, so that names count first.
    """
    names: dict[str, list[str]] = {}
    for known in known_keys():
        names.setdefault(_name(known), []).append(known)
    close = difflib.get_close_matches(_name(key), names, n=1, cutoff=_CLOSE)
    if not close:
        return None
    return max(names[close[0]], key=lambda known: difflib.SequenceMatcher(None, key, known).ratio())


def known_keys() -> list[str]:
    """Keys ("optim.b1") that a config of any model may have."""
    models = (next(iter(family.members)) for family in zoo.families())
    return sorted({key for model in models for key, _ in settings.flat(declared(model))})


def _name(key: str) -> str:
    return key.rpartition(".")[2]
