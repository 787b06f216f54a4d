"""Decisions are exactly 0 or 1, and gradients pass through them as through a sigmoid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.methods.adavit import gumbel

THRESHOLDS = [0.05, 0.3, 0.5, 0.6, 0.9]


@settings(deadline=None)
@given(
    st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=20),
    st.sampled_from(THRESHOLDS),
    st.sampled_from([0.1, 1.0, 5.0]),
    st.integers(0, 1000),
)
def test_decisions_are_exactly_zero_or_one(logits, threshold, temperature, seed):
    logits = jnp.asarray(logits, jnp.float32)
    noise = gumbel.noise(jax.random.key(seed), logits.shape)
    for found in (
        gumbel.decide(logits, threshold=threshold),
        gumbel.decide(logits, threshold=threshold, noise=noise, temperature=temperature),
    ):
        assert found.dtype == jnp.float32
        assert set(np.unique(found)) <= {0.0, 1.0}


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_without_noise_the_probability_decides(threshold):
    border = np.log(threshold / (1 - threshold))
    logits = border + np.array([-1e-3, 1e-3, -5.0, 5.0])
    np.testing.assert_array_equal(gumbel.decide(logits, threshold=threshold), [0, 1, 0, 1])


@pytest.mark.parametrize("temperature", [0.5, 5.0])
def test_the_gradient_is_that_of_the_noisy_probability(temperature):
    logits = jnp.array([-3.0, -0.2, 0.1, 4.0])
    noise = jnp.array([1.0, -2.0, 0.5, 0.0])

    def total(logits, temperature):
        return gumbel.decide(logits, threshold=0.6, noise=noise, temperature=temperature).sum()

    soft = 1 / (1 + np.exp(-(logits + noise) / temperature))
    found = jax.grad(total)(logits, temperature)
    np.testing.assert_allclose(found, soft * (1 - soft) / temperature, rtol=1e-5)


def test_without_noise_there_is_no_gradient():
    found = jax.grad(lambda x: gumbel.decide(x, threshold=0.5).sum())(jnp.array([-1.0, 2.0]))
    np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_at_a_threshold_of_a_half_yes_has_the_probability_of_the_logit(logit, temperature):
    noise = gumbel.noise(jax.random.key(0), (40_000,))
    found = gumbel.decide(
        jnp.full(noise.shape, logit), threshold=0.5, noise=noise, temperature=temperature
    )
    assert float(found.mean()) == pytest.approx(1 / (1 + np.exp(-logit)), abs=0.01)


def test_with_a_higher_threshold_temperature_moves_the_probability():
    noise, logits = gumbel.noise(jax.random.key(0), (40_000,)), jnp.zeros(40_000)
    for temperature in (1.0, 5.0):
        found = gumbel.decide(logits, threshold=0.6, noise=noise, temperature=temperature)
        needed = temperature * np.log(0.6 / 0.4)  # of the noise, which is logistic
        assert float(found.mean()) == pytest.approx(1 / (1 + np.exp(needed)), abs=0.01)


def test_noise_is_the_difference_of_two_gumbel_samples():
    noise = gumbel.noise(jax.random.key(1), (200_000,))
    assert noise.dtype == jnp.float32
    one, other = (jax.random.gumbel(jax.random.key(seed), (200_000,)) for seed in (2, 3))
    shares = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
        np.quantile(noise, shares), np.quantile(one - other, shares), atol=0.05
    )


def test_what_nobody_can_decide_about_runs():
    logits = jnp.array([jnp.nan, -jnp.inf, jnp.inf])
    np.testing.assert_array_equal(
        jax.jit(lambda x: gumbel.decide(x, threshold=0.5))(logits), [1, 0, 1]
    )
