"""Depth priors are proper distributions at the place they promise."""

import itertools

import chex
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax.methods.avit.priors import depth_prior

FAMILIES = (
    "gaussian", "laplace", "student_t", "cauchy",
    "lognormal", "skew_normal", "geometric", "uniform",
)  # fmt: skip
depths = st.integers(1, 48)
targets = st.floats(1.0, 1e3) | st.sampled_from([1.0, 1e6])
scales = st.floats(1e-3, 1e3) | st.sampled_from([1e-6, 1e6])


def assert_distribution(prior: np.ndarray, depth: int) -> None:
    chex.assert_shape(prior, (depth,))
    assert prior.dtype == np.float64
    assert np.isfinite(prior).all()
    assert (prior >= 0.0).all()
    assert prior.sum() == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(FAMILIES),
    depth=depths,
    target=targets,
    scale=scales,
    df=st.floats(0.1, 100.0) | st.sampled_from([1e-6, 2.0, 2.0 + 1e-15, 1e6]),
    skew=st.floats(-50.0, 50.0) | st.sampled_from([-1e6, 1e6]),
)
def test_every_family_is_a_distribution_at_any_depth(name, depth, target, scale, df, skew):
    prior = depth_prior(depth, name, target_depth=target, scale=scale, df=df, skew=skew)
    assert_distribution(prior, depth)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student_t", "cauchy", "skew_normal"])
@pytest.mark.parametrize("target", [-1e6, -1000.0, 0.0, 1000.0, 1e6])
def test_targets_far_outside_the_layers_favour_the_nearest_layer(name, target):
    prior = depth_prior(12, name, target_depth=target)
    assert_distribution(prior, 12)
    assert prior.argmax() == (0 if target < 6 else 11)


@pytest.mark.parametrize("name", FAMILIES)
def test_one_layer_gets_everything(name):
    np.testing.assert_array_equal(depth_prior(1, name, target_depth=3.0), [1.0])


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student_t", "cauchy", "skew_normal"])
@pytest.mark.parametrize("target", [2, 7, 11])
def test_whole_targets_are_the_most_probable_layer(name, target):
    prior = depth_prior(12, name, target_depth=target)
    assert prior.argmax() == target - 1


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student_t", "cauchy"])
def test_targets_between_layers_share_evenly(name):
    prior = depth_prior(12, name, target_depth=4.5, scale=1.3)
    np.testing.assert_allclose(prior[:8], prior[:8][::-1], rtol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "skew_normal", "lognormal"])
def test_scale_is_the_standard_deviation_in_layers(name):
    layers = np.arange(1, 201)
    prior = depth_prior(200, name, target_depth=80.0, scale=9.0)
    mean = prior @ layers
    # The tails beyond the layers are missing, hence the tolerance.
    assert np.sqrt(prior @ (layers - mean) ** 2) == pytest.approx(9.0, rel=2e-3)


@settings(max_examples=60, deadline=None)
@given(depth=st.integers(2, 48), share=st.floats(0.0, 1.0))
def test_geometric_has_its_mean_at_the_target_and_constant_odds(depth, share):
    target = 1.0 + share * (depth - 1)
    prior = depth_prior(depth, "geometric", target_depth=target)
    assert prior @ np.arange(1, depth + 1) == pytest.approx(target, abs=1e-9)
    # Only where both neighbours are far from the smallest normal number.
    odds = [b / a for a, b in itertools.pairwise(prior) if min(a, b) > 1e-290]
    np.testing.assert_allclose(odds, odds[:1] * len(odds), rtol=1e-9)


def test_geometric_is_the_plain_one_where_the_layers_hold_all_of_it():
    prior = depth_prior(48, "geometric", target_depth=2.0)
    np.testing.assert_allclose(prior[:20], 0.5 ** np.arange(1, 21), rtol=1e-9)


def test_geometric_beyond_the_last_layer_halts_there():
    np.testing.assert_allclose(depth_prior(6, "geometric", target_depth=9.0), np.eye(6)[5])


def test_uniform_ignores_location_and_scale():
    prior = depth_prior(8, "uniform", target_depth=-3.0, scale=17.0)
    np.testing.assert_allclose(prior, np.full(8, 0.125))


def test_a_mixture_gives_each_component_its_share():
    mixture = [
        dict(name="gaussian", target_depth=2.0, weight=3.0),
        dict(name="laplace", scale=0.5, weight=1.0),
        dict(name="cauchy", target_depth=500.0, weight=4.0),
    ]
    prior = depth_prior(12, mixture, target_depth=10.0, scale=2.0)
    assert_distribution(prior, 12)
    parts = (
        depth_prior(12, "gaussian", target_depth=2.0, scale=2.0),
        depth_prior(12, "laplace", target_depth=10.0, scale=0.5),
        depth_prior(12, "cauchy", target_depth=500.0, scale=2.0),
    )
    expected = (3.0 * parts[0] + parts[1] + 4.0 * parts[2]) / 8.0
    np.testing.assert_allclose(prior, expected, rtol=1e-12)


def test_weights_left_out_are_equal():
    mixture = [dict(name="gaussian", target_depth=3.0), dict(name="gaussian", target_depth=10.0)]
    prior = depth_prior(12, mixture, target_depth=6.0)
    np.testing.assert_allclose(prior, prior[::-1], rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    depth=depths,
    parts=st.lists(
        st.builds(
            lambda name, target, scale, weight: dict(
                name=name, target_depth=target, scale=scale, weight=weight
            ),
            st.sampled_from(FAMILIES),
            targets,
            scales,
            st.floats(1e-6, 1e6),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_every_mixture_is_a_distribution(depth, parts):
    assert_distribution(depth_prior(depth, parts, target_depth=1.0), depth)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(prior="gausian"), r"prior has name 'gausian'.*gaussian, laplace.*uniform\."),
        (dict(scale=0.0), r"prior 'gaussian' has scale 0\.0: write a number from 1e-06 to 1e\+06"),
        (dict(scale=float("nan")), r"has scale nan"),
        (dict(scale="wide"), r"has scale 'wide'"),
        (dict(target_depth=float("inf")), r"has target_depth inf"),
        (dict(prior="lognormal", target_depth=0.0), r"'lognormal' has target_depth 0\.0"),
        (dict(prior="geometric", target_depth=0.5), r"'geometric' has target_depth 0\.5.*from 1 "),
        (dict(prior="student_t", df=0.0), r"'student_t' has df 0\.0"),
        (dict(prior="skew_normal", skew=float("inf")), r"has skew inf"),
        (dict(prior=[]), r"prior is \[\]: write one of"),
        (dict(prior=3), r"prior is 3: write one of"),
        (dict(prior=[dict(target_depth=2.0)]), r"prior\[0\] has no name"),
        (
            dict(prior=[dict(name="gaussian"), dict(name="laplace", weight=-1.0)]),
            r"prior\[1\] 'laplace' has weight -1\.0",
        ),
        (
            dict(prior=[dict(name="gaussian", target=2.0)]),
            r"prior\[0\] has the unknown key 'target': write name, target_depth, scale",
        ),
        (dict(compat="nvidia"), r"prior_compat 'nvidia' is unknown: write None, 'nvlabs'"),
        (dict(depth=0), r"depth is 0"),
        (dict(depth=2.5), r"depth is 2\.5"),
    ],
)
def test_bad_values_are_named(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        depth_prior(**{"depth": 12, "target_depth": 6.0} | options)
    assert "\n" not in str(caught.value)
