"""The log-densities agree with SciPy's, and location and scale mean what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from avit_jax.methods.avit.prior_families import FAMILIES, Component, standard_skew_normal_mode

GRID = np.linspace(-40.0, 60.0, 20_001)


def part(name: str, **values: float) -> Component:
    return Component(
        **{"name": name, "target_depth": 5.3, "scale": 1.7, "df": 5.0, "skew": 4.0} | values
    )


def scipy_skew_normal(alpha: float, mode: float, std: float):
    """SciPy's distribution with this mode, found on a fine grid, and standard deviation."""
    unit = stats.skewnorm(alpha)
    z = np.linspace(-1.0, 1.0, 200_001)
    width = std / unit.std()
    return stats.skewnorm(alpha, mode - width * z[unit.pdf(z).argmax()], width)


@pytest.mark.parametrize(
    "component, expected",
    [
        (part("gaussian"), stats.norm(5.3, 1.7)),
        (part("laplace"), stats.laplace(5.3, 1.7 / 2**0.5)),
        (part("student_t"), stats.t(5.0, 5.3, 1.7 * (3 / 5) ** 0.5)),
        (part("student_t", df=1.5), stats.t(1.5, 5.3, 1.7)),
        (part("cauchy"), stats.cauchy(5.3, 1.7)),
        (part("skew_normal"), scipy_skew_normal(4.0, 5.3, 1.7)),
        (part("skew_normal", skew=-1.5), scipy_skew_normal(-1.5, 5.3, 1.7)),
        (part("skew_normal", skew=0.0), stats.norm(5.3, 1.7)),
    ],
    ids=lambda value: value.name if isinstance(value, Component) else "scipy",
)
def test_densities_equal_scipy(component, expected):
    found = FAMILIES[component.name](GRID, component)
    near = np.abs(GRID - 5.3) < 12.0
    # The grid's mode is exact to half its step only, hence the tolerance.
    np.testing.assert_allclose(np.exp(found[near]), expected.pdf(GRID[near]), rtol=1e-3, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(median=st.floats(0.5, 40.0), std=st.floats(0.05, 40.0))
def test_lognormal_has_its_median_at_the_target_and_scale_as_standard_deviation(median, std):
    x = np.linspace(0.1, 60.0, 300)
    component = part("lognormal", target_depth=median, scale=std)
    found = FAMILIES["lognormal"](x, component)
    # log f + log x is a parabola in log x, whose coefficients give both parameters.
    curvature, slope, _ = np.polyfit(np.log(x), found + np.log(x), 2)
    sigma = (-2.0 * curvature) ** -0.5
    expected = stats.lognorm(sigma, scale=np.exp(-slope / (2.0 * curvature)))
    assert expected.median() == pytest.approx(median, rel=1e-6)
    assert expected.std() == pytest.approx(std, rel=1e-4)
    np.testing.assert_allclose(found, expected.logpdf(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("skew", [-1000.0, -4.0, -0.1, 0.0, 0.5, 4.0, 50.0])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_skew_normal_has_its_mode_at_the_target(skew, scale):
    fine = 5.3 + scale * np.linspace(-2.0, 2.0, 40_001)
    density = FAMILIES["skew_normal"](fine, part("skew_normal", skew=skew, scale=scale))
    assert fine[density.argmax()] == pytest.approx(5.3, abs=2e-4 * scale)


def test_a_positive_skew_has_its_long_tail_deeper():
    shallow, deep = FAMILIES["skew_normal"](np.asarray([3.3, 7.3]), part("skew_normal"))
    assert deep > shallow + 1.0


@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0])
def test_opposite_shapes_have_opposite_modes(alpha):
    assert 0.0 < standard_skew_normal_mode(alpha) < 1.0
    assert standard_skew_normal_mode(-alpha) == -standard_skew_normal_mode(alpha)


def test_scale_is_the_standard_deviation_of_student_t_with_one():
    x = np.linspace(-3000.0, 3000.0, 600_001)
    density = np.exp(FAMILIES["student_t"](x, part("student_t", target_depth=0.0)))
    density /= density.sum()
    assert np.sqrt(density @ x**2) == pytest.approx(1.7, rel=1e-3)


def test_scale_is_the_half_width_of_cauchy():
    top, half = FAMILIES["cauchy"](np.asarray([5.3, 7.0]), part("cauchy"))
    assert top - half == pytest.approx(np.log(2.0))
