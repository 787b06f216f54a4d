"""Intervals and tests, against Student's own data and figures by hand."""

import numpy as np
import pytest

from avit_jax.study.statistics import mean_of, paired_t_test, sign_test

# Additional hours of sleep by one drug over the other, ten patients (Student 1908).
SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


def test_student_s_interval_and_test_of_sleep():
    mean = mean_of(SLEEP)
    assert (mean.mean, mean.count) == (pytest.approx(1.58), 10)
    assert mean.half_width == pytest.approx(2.262157 * 1.229995 / np.sqrt(10), rel=1e-5)
    assert paired_t_test(SLEEP) == pytest.approx(0.002833, abs=1e-6)


def test_one_figure_has_no_interval_and_equal_ones_no_test():
    assert mean_of([0.5]) == (0.5, None, 1)
    assert mean_of([0.5, 0.5]) == (0.5, 0.0, 2)
    assert paired_t_test([0.3]) is None and paired_t_test([0.2, 0.2]) is None


def test_ties_have_no_sign():
    assert sign_test([1.0] * 9 + [0.0, 0.0, -0.5]) == {
        "above": 9, "below": 1, "p_value": pytest.approx(2 * 11 / 1024)
    }  # fmt: skip
    assert sign_test([0.0])["p_value"] == 1.0
