"""Cost against confidence, on images whose relation is known."""

import json

import numpy as np
import pytest

from avit_jax.viz import difficulty


def test_doubtful_images_that_cost_more_say_so():
    confidence = np.linspace(0.1, 0.9, 24)[np.random.default_rng(0).permutation(24)]
    share = 0.9 - confidence**3 / 2
    right = [bool(value > 0.5) for value in confidence]
    found = difficulty.relation(confidence, share, right)
    assert found["correlation"] == pytest.approx(-1.0)
    assert [group["images"] for group in found["groups"]] == [4] * 6
    shares = [group["share"] for group in found["groups"]]
    assert shares == sorted(shares, reverse=True)
    assert found["wrong"]["images"] + found["right"]["images"] == 24
    assert found["right"]["share"] == pytest.approx(share[confidence > 0.5].mean())
    assert found["wrong"]["share"] > found["right"]["share"]
    assert "-1.00; right 71%, wrong 88% of dense" in difficulty.in_words(found)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_groups_hold_every_image_once_whatever_their_number():
    generator = np.random.default_rng(1)
    for count in (1, 3, 9, 50):
        confidence, share = generator.random((2, count))
        groups = difficulty.relation(confidence, share, [None] * count)["groups"]
        assert sum(group["images"] for group in groups) == count
        total = sum(group["images"] * group["share"] for group in groups)
        assert total == pytest.approx(share.sum())


def test_equal_costs_have_no_relation_and_unknown_classes_no_right_and_wrong():
    found = difficulty.relation(np.array([0.2, 0.7]), np.array([0.5, 0.5]), [None, None])
    assert (found["correlation"], found["right"], found["wrong"]) == (None, None, None)
    assert "cost the same" in difficulty.in_words(found)


def test_ties_share_their_rank():
    found = difficulty.relation(np.array([1, 1, 2, 3.0]), np.array([1, 1, 2, 3.0]), [None] * 4)
    assert found["correlation"] == pytest.approx(1.0)
