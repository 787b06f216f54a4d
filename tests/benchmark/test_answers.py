"""Answers are compared with those of masked execution; what dropped tokens change is counted."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from avit_jax.benchmark.answers import Answers, compare, masked_answers
from avit_jax.benchmark.cases import Case
from avit_jax.errors import UserError
from avit_jax.types import Usage

MASKED = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])


def answers(logits, **known):
    return Answers(logits=logits, usage=(Usage(tokens=np.ones((2, 4, 3), bool)),), **known)


def case(labels=None):
    return Case("test", None, None, np.zeros((4, 8, 8, 3)), np.array([0, 2]), None, labels)


def test_what_dropped_tokens_change_is_counted():
    masked = answers(MASKED, near=np.zeros(4, bool))
    capped = answers(MASKED[:, ::-1] * [[1], [0], [0], [0]] + MASKED * [[0], [1], [1], [1]],
                     dropped=np.array([True, True, False, False]))  # fmt: skip
    figures = compare(case(np.array([0, 1, 0, 1])), capped, masked, exact=False)
    assert figures == {
        "same_class": 0.75,
        "images_affected": 0.5,
        "top1": 0.5,
        "top1_change": -0.25,
    }


def test_images_near_the_threshold_are_left_out_of_the_difference_and_counted():
    masked = answers(MASKED, near=np.array([False, True, False, False]))
    compact = answers(MASKED + np.array([[0.001], [5.0], [0.0], [0.0]]))
    figures = compare(case(), compact, masked, exact=True)
    assert figures["logit_difference"] == pytest.approx(0.001)
    assert figures["images_near_threshold"] == 1
    assert "top1" not in figures


def test_the_batch_is_made_of_the_timed_images():
    assert case().batch.shape == (2, 8, 8, 3)


def test_a_method_that_gives_no_margin_is_named():
    model = SimpleNamespace(name="silent", apply=lambda *_: SimpleNamespace(aux={}))
    silent = dataclasses.replace(case(), model=model, params={})
    with pytest.raises(UserError, match=r"method silent gives no margin.*: add it to aux"):
        masked_answers(silent)
