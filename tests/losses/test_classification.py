"""Targets, cross-entropy and hits against what they mean, written out in NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.losses import classification


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_soft_targets_spread_the_smoothing_over_all_classes(smoothing):
    targets = classification.soft_targets(jnp.array([2, 0]), 4, smoothing=smoothing)
    chex.assert_shape(targets, (2, 4))
    off = smoothing / 4
    expected = np.full((2, 4), off)
    expected[0, 2] = expected[1, 0] = 1 - smoothing + off
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(-1), 1.0, rtol=1e-6)


def test_cross_entropy_of_a_label_is_minus_its_log_probability():
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    labels = np.arange(5)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nats = classification.cross_entropy(jnp.asarray(logits), classification.soft_targets(labels, 7))
    np.testing.assert_allclose(nats, -np.log(probabilities[labels, labels]), rtol=1e-5)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    targets = classification.soft_targets(jnp.array([3]), 10, smoothing=0.1)
    np.testing.assert_allclose(
        classification.cross_entropy(jnp.zeros((1, 10)), targets), np.log(10.0), rtol=1e-6
    )


def test_binary_cross_entropy_is_that_of_each_class_by_itself_and_their_mean():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (2, 5, 7)), rng.uniform(size=(5, 7))
    present = 1 / (1 + np.exp(-logits))
    expected = -(targets * np.log(present) + (1 - targets) * np.log(1 - present)).mean(-1)
    found = classification.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_cross_entropy_takes_every_exit_of_a_cascade():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 5)), jnp.float32)
    targets = classification.soft_targets(jnp.array([0, 1, 2, 3]), 5)
    together = classification.cross_entropy(logits, targets)
    chex.assert_shape(together, (3, 4))
    for exit_, nats in zip(logits, together, strict=True):
        np.testing.assert_allclose(nats, classification.cross_entropy(exit_, targets), rtol=1e-6)


def test_cross_entropy_of_bfloat16_logits_is_float32_and_stays_finite_when_they_are_huge():
    logits = jnp.array([[1e4, -1e4, 0.0]], jnp.bfloat16)
    nats = classification.cross_entropy(logits, classification.soft_targets(jnp.array([1]), 3))
    assert nats.dtype == jnp.float32
    np.testing.assert_allclose(nats, [2e4], rtol=1e-2)


def test_gradient_of_cross_entropy_is_softmax_minus_target():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6)), jnp.float32)
    targets = classification.soft_targets(jnp.array([1, 5]), 6, smoothing=0.2)
    gradient = jax.grad(lambda x: classification.cross_entropy(x, targets).sum())(logits)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - targets, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=4, max_size=4),
    label=st.integers(0, 5),
    k=st.integers(1, 6),
)
def test_a_hit_means_that_fewer_than_k_others_are_at_least_as_large(rows, label, k):
    logits = np.asarray(rows, np.float32)
    labels = np.full(4, label)
    expected = [
        sum(row[other] >= row[label] for other in range(6) if other != label) < k for row in logits
    ]
    np.testing.assert_array_equal(classification.hits(jnp.asarray(logits), labels, k=k), expected)


def test_equal_logits_are_no_hit_so_that_a_constant_model_scores_nothing():
    assert not classification.hits(jnp.zeros((3, 10)), jnp.array([0, 4, 9]), k=5).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_row_with_a_value_that_is_not_finite_is_no_hit_whatever_k(bad, place):
    logits = np.array([[5.0, 1.0, 0.0], [5.0, 1.0, 0.0]], np.float32)
    logits[1, place] = bad
    np.testing.assert_array_equal(classification.hits(logits, np.array([0, 0]), k=3), [True, False])
