"""Budgets of a cascade, met by thresholds that what its exits say about some images decides.

There are two families: "searched" (`budget_search.py`), and "quotas", the published one
(`exit_quotas.py`). A position of either dial is a cost: by how many per cent it is above the
cascade's own.

A temperature makes an exit's confidence the chance that it is right (`temperatures.py`), which is
what exits are compared by. Which images an exit is surest of changes with it as well, for better
or worse, so that the search is made with fitted temperatures and without, and the better is taken.

Where exits leave out tokens themselves, the images run at several positions of that dial,
thresholds are searched at each of them, and the best of all that keep to the budget is taken:
whether images should rather stop early or be looked at with fewer tokens is for the calibration
images to say. The published family knows exits alone, and keeps what they leave out as learnt.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from avit_jax.methods.dvt import budget_search, joint_dial, temperatures
from avit_jax.methods.dvt.budget_search import Images
from avit_jax.types import SATURATED, Dial, DialSettings, ExitAnswers

_TO_THE_END: DialSettings = {"threshold_shift": SATURATED}
# Of the exits' own dial, in logits, beside its highest: from much that is left out to little.
POSITIONS = (-16.0, -6.0, -2.0, 0.0, 2.0, 6.0, 16.0)
_RESOLUTION = 0.002  # of a budget: costs that are as close to it are equally good


@dataclasses.dataclass(frozen=True, eq=False)
class _Turned:
    """What exits say where their method's own dial stands at one position.

    Attributes:
        settings: of the exits' method there; none where it has no dial.
        said: about the calibration images.
        fitted: a temperature for each exit.
    """

    settings: DialSettings
    said: ExitAnswers
    fitted: tuple[float, ...]

    @functools.cached_property
    def worth(self) -> np.ndarray:
        """See `budget_search.worth`."""
        right = self.said.logits.argmax(-1) == self.said.labels
        return budget_search.worth(_confidences(self.said, self.fitted), right)

    @functools.cache  # noqa: B019 - lives as long as the dials that were made of it
    def images(self, divisors: tuple[float, ...]) -> Images:
        """With these temperatures, one for each exit."""
        return Images(_confidences(self.said, divisors), self.worth, self.said.gmacs)


class _Rule(NamedTuple):
    """What decides about images: thresholds, temperatures of all exits, and the exits' own dial."""

    thresholds: tuple[float, ...]
    divisors: tuple[float, ...]
    turned: _Turned

    @property
    def cost(self) -> float:
        """GMACs per calibration image."""
        return self.turned.images(self.divisors).cost(np.array(self.thresholds, np.float32))

    @property
    def answers(self) -> float:
        """How good the answers are."""
        return self.turned.images(self.divisors).answers(np.array(self.thresholds, np.float32))


def fit(model: Any, answers: Callable[[DialSettings], ExitAnswers]) -> dict[str, Dial]:
    """See `base.Model.fitted_dials`.

    Args:
        model: the cascade, of two exits or more.
        answers: of its exits.
    """
    inner = model.inner.dial()
    settings: list[DialSettings] = [{}]  # the learnt one first
    if inner is not None:
        positions = sorted({*POSITIONS, inner.high} - {0.0})
        settings = [joint_dial.of_exits(inner).settings(at) for at in (0.0, *positions)]
    turned = [_turned(answers, one) for one in settings]
    learnt = turned[0]
    plain = (1.0,) * len(learnt.fitted)

    def searched(gmacs: float) -> _Rule:
        return _best(
            [
                _Rule(_plain(budget_search.search(one.images(divisors), gmacs)), divisors, one)
                for one in turned
                for divisors in (plain, one.fitted)
            ],
            gmacs,
        )

    def published(gmacs: float) -> _Rule:
        found = budget_search.published(learnt.images(plain), gmacs)
        return _Rule(_plain(found), plain, learnt)

    asked = model.settings.confidences
    own = _Rule(
        tuple(max(0.0, float(one.at_least)) for one in asked),
        (*(float(one.temperature) for one in asked), 1.0),
        learnt,
    )
    return {
        "searched": _dial(searched, own, turned),
        "quotas": _dial(published, own, [learnt]),
    }


def _turned(answers: Callable[[DialSettings], ExitAnswers], settings: DialSettings) -> _Turned:
    said = answers(_TO_THE_END | settings)
    fitted = tuple(temperatures.fit(logits, said.labels) for logits in said.logits)
    return _Turned(settings, said, fitted)


def _best(rules: Sequence[_Rule], gmacs: float) -> _Rule:
    """The rule that answers best among those that cost what is asked for, or come closest to it."""
    misses = [abs(rule.cost - gmacs) for rule in rules]
    allowed = max(min(misses), _RESOLUTION * gmacs)
    kept = [rule for rule, miss in zip(rules, misses, strict=True) if miss <= allowed]
    return max(kept, key=lambda rule: rule.answers)


def _dial(rule_for: Callable[[float], _Rule], own: _Rule, turned: Sequence[_Turned]) -> Dial:
    """A family of rules as a dial.

    Args:
        rule_for: the rule for GMACs per image.
        own: the model's own rule, position 0.
        turned: what the family may choose from; it spans what there is to cost.
    """
    before = own.cost

    @functools.cache
    def rule(position: float) -> _Rule:
        return own if position == 0.0 else rule_for(before * (1 + position / 100))

    def settings(position: float) -> DialSettings:
        thresholds, divisors, one = rule(position)
        found = {"thresholds": thresholds, "temperatures": divisors[:-1], "threshold_shift": 0.0}
        return found | one.settings

    least = min(float(one.said.gmacs[0].mean()) for one in turned)
    most = max(float(one.said.gmacs[-1].mean()) for one in turned)
    low, high = (100 * (gmacs / before - 1) for gmacs in (least, most))
    return Dial(settings, low, high, lambda position: rule(position).cost)


def _plain(thresholds: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, thresholds))


def _confidences(said: ExitAnswers, divisors: tuple[float, ...]) -> np.ndarray:
    """The largest probabilities `[E, n]` float32 of logits divided by one number for each exit."""
    wide = np.asarray(said.logits, np.float32) / np.array(divisors, np.float32)[:, None, None]
    return softmax(wide, axis=-1).max(-1)
