"""The divergence from a depth prior: its value, its gradient, and what it does not hide."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.methods.avit.priors import depth_prior, divergence


def test_divergence_is_differentiable_under_jit():
    target = depth_prior(6, target_depth=4.0)
    scores = jnp.asarray([0.1, 0.2, 0.3, 0.5, 0.4, 0.2])
    value, gradient = jax.jit(jax.value_and_grad(lambda s: divergence(target, s)))(scores)
    chex.assert_type([value, gradient], jnp.float32)
    step = 1e-2  # no entry crosses the clipping range within a step
    for layer in range(6):
        there = divergence(target, scores.at[layer].add(step))
        back = divergence(target, scores.at[layer].add(-step))
        assert float(gradient[layer]) == pytest.approx(
            float(there - back) / (2 * step), rel=2e-2, abs=1e-4
        )


def test_divergence_of_the_target_itself_is_zero():
    target = depth_prior(5, target_depth=3.0, scale=2.0)
    assert float(divergence(target, jnp.asarray(3.0 * target))) == pytest.approx(0.0, abs=1e-7)


def test_layers_without_target_count_nothing():
    target = np.asarray([0.0, 1.0, 0.0, 1e-42])
    value = divergence(target, jnp.asarray([0.25, 0.25, 0.25, 0.25]))
    assert float(value) == pytest.approx(np.log(4.0) / 4, rel=1e-6)


def test_no_scores_give_the_value_of_the_lower_clip_and_no_gradient():
    target = depth_prior(6, target_depth=4.0)
    value, gradient = jax.value_and_grad(lambda s: divergence(target, s))(jnp.zeros(6))
    expected = np.mean(target * (np.log(target) - np.log(0.01)))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(gradient, np.zeros(6))


@pytest.mark.parametrize("unit", [1e-37, 1e-31, 1e-29, 1e-20, 1e-10, 1.0, 1e20])
def test_gradients_stay_finite_for_scores_of_any_size(unit):
    target = depth_prior(6, target_depth=4.0)
    scores = unit * jnp.asarray([0.0, 1.0, 2.0, 1.0, 0.5, 3.0])
    value, gradient = jax.value_and_grad(lambda s: divergence(target, s))(scores)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    # The divergence doesn't depend on the unit, so its slope along the scores is 0.
    assert float(gradient @ scores) == pytest.approx(0.0, abs=1e-5)


def test_clipped_entries_pass_no_gradient():
    target = jnp.asarray([0.5, 0.5, 0.0])
    scores = jnp.asarray([1e-4, 0.5, 0.5])
    # Only layer 2 is within the range and has a target: -1/3 * 0.5 * d log(s_2 / sum(s)).
    gradient = jax.grad(lambda s: divergence(target, s))(scores)
    total = float(scores.sum())
    outside = 0.5 / 3 / total
    inside = outside - 0.5 / 3 / 0.5
    np.testing.assert_allclose(gradient, [outside, inside, outside], rtol=1e-5)


def test_one_layer_costs_a_constant():
    value, gradient = jax.value_and_grad(lambda s: divergence(np.ones(1), s))(jnp.asarray([0.3]))
    assert float(value) == pytest.approx(-np.log(0.99), rel=1e-5)
    np.testing.assert_array_equal(gradient, [0.0])


def test_nan_scores_are_not_hidden():
    target = depth_prior(3, target_depth=2.0)
    assert np.isnan(divergence(target, jnp.asarray([0.2, np.nan, 0.3])))


@pytest.mark.parametrize(
    "target, options, message",
    [
        (np.ones(3), {}, r"shape \(3,\) and scores \(4,\)"),
        (np.ones((1, 4)), {}, r"shape \(1, 4\)"),
        (np.ones(4), {"clip": (0.0, 0.9)}, r"clip is \(0\.0, 0\.9\)"),
        (np.ones(4), {"clip": (0.9, 0.1)}, r"clip is"),
    ],
)
def test_divergence_refuses_what_it_cannot_measure(target, options, message):
    with pytest.raises(ValueError, match=message):
        divergence(target, jnp.ones(4), **options)
