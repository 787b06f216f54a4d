"""Draws from Beta(alpha, alpha) against SciPy's own quantiles and distribution."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import betaincinv

from avit_jax.data import symmetric_beta

ALPHAS = (0.05, 0.2, 0.8, 1.0, 2.5, 8.0, 50.0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_draw_is_the_quantile_of_its_uniform_number(alpha):
    key = jax.random.key(0)
    drawn = np.asarray(symmetric_beta.draw(key, alpha, (20_000,)), np.float64)
    uniform = np.asarray(jax.random.uniform(key, (20_000,)), np.float64)
    assert np.abs(drawn - betaincinv(alpha, alpha, uniform)).max() < 1e-6


@pytest.mark.parametrize("alpha", ALPHAS[2:])  # below, many draws are 1 in float32
def test_draws_follow_the_distribution(alpha):
    drawn = np.asarray(symmetric_beta.draw(jax.random.key(1), alpha, (20_000,)), np.float64)
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("number", [0.0, 0.25, 0.5, 1 - 2**-24])
def test_numbers_at_the_ends_stay_within(number, monkeypatch):
    uniform = lambda key, shape, dtype: np.full(shape, number, dtype)  # noqa: E731
    monkeypatch.setattr(symmetric_beta.jax.random, "uniform", uniform)
    for alpha in ALPHAS:
        drawn = float(symmetric_beta.draw(jax.random.key(0), alpha, ()))
        assert 0.0 <= drawn <= 1.0
        assert number != 0.5 or drawn == pytest.approx(0.5, abs=1e-6)


def test_there_is_neither_a_loop_nor_a_table():
    text = str(jax.make_jaxpr(lambda key: symmetric_beta.draw(key, 0.8, (3,)))(jax.random.key(0)))
    assert "while" not in text and "gather" not in text
