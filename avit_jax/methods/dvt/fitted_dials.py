"""Budgets of a cascade, met by thresholds that what its exits say about some images decides.

There are two families: "searched" (`budget_search.py`), and "quotas", the published one
(`exit_quotas.py`). A position of either dial is a cost: by how many per cent it is above the
cascade's own.

A temperature makes an exit's confidence the chance that it is right (`temperatures.py`), which is
what exits are compared by. Which images an exit is surest of changes with it as well, for better
or worse, so that the search is made with fitted temperatures and without, and the better is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

from avit_jax.methods.dvt import budget_search, temperatures
from avit_jax.methods.dvt.budget_search import Images
from avit_jax.types import SATURATED, Dial, DialSettings, ExitAnswers

_TO_THE_END: DialSettings = {"threshold_shift": SATURATED}
_Rule = tuple[tuple[float, ...], tuple[float, ...]]  # thresholds and temperatures


def fit(model: Any, answers: Callable[[DialSettings], ExitAnswers]) -> dict[str, Dial]:
    """See `base.Model.fitted_dials`.

    Args:
        model: the cascade, of two exits or more.
        answers: of its exits.
    """
    said = answers(_TO_THE_END)
    fitted = tuple(temperatures.fit(logits, said.labels) for logits in said.logits)
    worth = budget_search.worth(_confidences(said, fitted), said.logits.argmax(-1) == said.labels)

    def at(divisors: tuple[float, ...]) -> Images:
        return Images(_confidences(said, divisors), worth, said.gmacs)

    plain = (1.0,) * len(fitted)
    images = {divisors: at(divisors) for divisors in (plain, fitted)}

    def searched(gmacs: float) -> _Rule:
        found = {divisors: budget_search.search(these, gmacs) for divisors, these in images.items()}
        best = max(found, key=lambda divisors: images[divisors].answers(found[divisors]))
        return tuple(map(float, found[best])), best[:-1]

    def published(gmacs: float) -> _Rule:
        return tuple(map(float, budget_search.published(images[plain], gmacs))), plain[:-1]

    def cost(rule: _Rule) -> float:
        return at((*rule[1], 1.0)).cost(np.array(rule[0], np.float32))

    own = (
        tuple(max(0.0, float(asked.at_least)) for asked in model.settings.confidences),
        tuple(float(asked.temperature) for asked in model.settings.confidences),
    )
    ends = said.gmacs[0].mean(), said.gmacs[-1].mean()
    families = {"searched": searched, "quotas": published}
    return {name: _dial(rule, cost, own, ends) for name, rule in families.items()}


def _dial(
    rule_for: Callable[[float], _Rule],
    cost: Callable[[_Rule], float],
    own: _Rule,
    ends: tuple[float, float],
) -> Dial:
    """A family of rules as a dial.

    Args:
        rule_for: the rule for GMACs per image.
        cost: GMACs per image of a rule.
        own: the model's own rule, position 0.
        ends: least and most GMACs per image.
    """
    before = cost(own)

    @functools.cache
    def rule(position: float) -> _Rule:
        return own if position == 0.0 else rule_for(before * (1 + position / 100))

    def settings(position: float) -> DialSettings:
        thresholds, divisors = rule(position)
        return {"thresholds": thresholds, "temperatures": divisors, "threshold_shift": 0.0}

    low, high = (100 * (float(gmacs) / before - 1) for gmacs in ends)
    return Dial(settings, low, high, lambda position: cost(rule(position)))


def _confidences(said: ExitAnswers, divisors: tuple[float, ...]) -> np.ndarray:
    """The largest probabilities `[E, n]` float32 of logits divided by one number for each exit."""
    wide = np.asarray(said.logits, np.float32) / np.array(divisors, np.float32)[:, None, None]
    return softmax(wide, axis=-1).max(-1)
