"""Thresholds for a budget: what is searched, and what it is held against."""

import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.methods.dvt import budget_search, temperatures
from avit_jax.methods.dvt.budget_search import Images
from avit_jax.methods.dvt.settings import NEVER
from avit_jax.types import ExitAnswers

IMAGES, CLASSES = 400, 5


def said(exits, *, images=IMAGES, seed=0):
    """Exits of which each sees more than the one before; costs are of every image's own."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, images)
    ease = generator.uniform(0.2, 2.5, (images, 1))
    shared = generator.normal(size=(images, CLASSES))
    logits = []
    for noise in np.linspace(2.0, 0.8, exits):
        seen = 2 * np.eye(CLASSES)[labels] * ease
        logits.append(seen + noise * (shared + generator.normal(size=(images, CLASSES))))
    each = generator.uniform(1.0, 2.0, (exits, images)) * 2.0 ** np.arange(exits)[:, None]
    return ExitAnswers(np.array(logits, np.float32), labels, each.cumsum(0))


def images_of(answers):
    wide = np.exp(answers.logits - answers.logits.max(-1, keepdims=True))
    confidences = (wide / wide.sum(-1, keepdims=True)).max(-1)
    right = answers.logits.argmax(-1) == answers.labels
    return Images(confidences, budget_search.worth(confidences, right), answers.gmacs)


@pytest.mark.parametrize("exits", [2, 3, 4])
def test_the_search_keeps_to_the_budget_and_answers_no_worse_than_quotas(exits):
    images = images_of(said(exits))
    least, most = images.gmacs[0].mean(), images.gmacs[-1].mean()
    gains = []
    for share in (0.1, 0.35, 0.6, 0.85):
        budget = least + share * (most - least)
        quotas = budget_search.published(images, budget)
        found = budget_search.search(images, budget)
        assert images.cost(found) == pytest.approx(budget, rel=0.01)
        assert images.cost(quotas) == pytest.approx(budget, rel=0.06)
        gains.append(images.answers(found) - images.answers(quotas))
    if exits > 2:
        assert np.mean(gains) > 0.002
    assert set(budget_search.search(images, least)) == {0.0}
    assert set(budget_search.search(images, most)) == {NEVER}


def test_two_thresholds_are_as_good_as_the_best_of_all_pairs():
    images = images_of(said(3, images=60))
    budget = float(np.quantile(images.gmacs, 0.5))
    found = budget_search.search(images, budget)
    borders = [np.append(0.0, budget_search.between(np.unique(c))) for c in images.confidences[:2]]
    pairs = [np.array([one, other], np.float32) for one in borders[0] for other in borders[1]]
    allowed = max(abs(images.cost(found) - budget), 0.002 * budget)
    kept = [pair for pair in pairs if abs(images.cost(pair) - budget) <= allowed]
    best = max(map(images.answers, kept))
    worst = min(map(images.answers, kept))
    assert images.answers(found) >= best - 0.1 * (best - worst)


def test_thresholds_lie_between_confidences_and_equal_ones_are_not_divided():
    confidences = np.array([[0.5, 0.7, 0.7, 0.7, 0.9], [1, 1, 1, 1, 1]], np.float32)
    images = Images(confidences, np.array([[0.0] * 5, [1.0] * 5]), np.array([[1.0] * 5, [2.0] * 5]))
    for budget, leave in ((1.9, 1), (1.6, 1), (1.5, 4), (1.2, 4)):
        (threshold,) = budget_search.search(images, budget)
        assert (confidences[0] >= threshold).sum() == leave
        assert np.abs(confidences[0] - threshold).min() > 0.05


def test_a_temperature_is_what_logits_were_multiplied_by():
    answers = said(1, images=4000)
    plain = temperatures.fit(answers.logits[0], answers.labels)
    for factor in (0.2, 5.0):
        found = temperatures.fit(factor * answers.logits[0], answers.labels)
        assert found == pytest.approx(factor * plain, rel=0.03)
    right = 10 * np.eye(CLASSES)[answers.labels]  # always right: only the prior holds it
    assert 0.1 < temperatures.fit(right[:20], answers.labels[:20]) < 10


def test_a_budget_decides_about_tokens_as_well():
    """Here exits whose tokens halt earlier than learnt cost half, and answer as well."""
    model = create_model("dvt_avit_deit_micro")
    learnt, asked = model.inner.settings.gate_center, []

    def answers(settings):
        asked.append(settings["inner.gate_center"])
        found = said(3)
        share = 0.5 if asked[-1] < learnt else 1.0
        return ExitAnswers(found.logits, found.labels, share * found.gmacs)

    dials = model.fitted_dials(answers)
    assert len(set(asked)) == len(asked) > 4 and asked[0] == learnt
    searched, quotas = dials["searched"], dials["quotas"]
    full = said(3).gmacs
    assert searched.gmacs(searched.low) == pytest.approx(full[0].mean() / 2)
    assert searched.gmacs(searched.high) == pytest.approx(full[-1].mean())
    budget = 0.4 * full[-1].mean()
    position = 100 * (budget / searched.gmacs(0.0) - 1)
    assert searched.gmacs(position) == pytest.approx(budget, rel=0.01)
    assert searched.settings(position)["inner.gate_center"] < learnt
    assert quotas.settings(position)["inner.gate_center"] == learnt
    changed = model.changed(searched.settings(position))
    assert all(one.settings.gate_center < learnt for one in changed.exits)


def test_dials_of_a_cascade_say_what_they_cost():
    model = create_model("dvt_deit_micro", method={"thresholds": (0.8, 0.7)})
    answers = said(3)
    asked = []
    dials = model.fitted_dials(lambda settings: asked.append(settings) or answers)
    assert len(asked) == 1 and list(dials) == ["searched", "quotas"]
    for dial in dials.values():
        assert dial.settings(0.0)["thresholds"] == (0.8, 0.7)
        assert dial.gmacs(dial.low) == pytest.approx(answers.gmacs[0].mean())
        assert dial.gmacs(dial.high) == pytest.approx(answers.gmacs[-1].mean())
        middle = 0.5 * (dial.low + dial.high)
        wanted = (answers.gmacs[0].mean() + answers.gmacs[-1].mean()) / 2
        assert dial.gmacs(middle) == pytest.approx(wanted, rel=0.03)
        changed = model.changed(dial.settings(middle)).settings
        assert changed.thresholds == dial.settings(middle)["thresholds"]
    assert create_model("dvt_deit_micro", method={"grids": (8,)}).fitted_dials(None) == {}
