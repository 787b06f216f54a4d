"""Targets and divergences equal the numbers recorded from two published implementations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.methods.avit.prior_compat import nvlabs_log_density, nvlabs_standardize
from avit_jax.methods.avit.priors import depth_prior, divergence

GOLDEN = dict(np.load(Path(__file__).parents[2] / "golden" / "distributions.npz"))
TARGETS = GOLDEN["target_depths"]
SCALINGS = GOLDEN["borgi/unimodal_scalings"]
VECTORS = jnp.asarray(GOLDEN["kl/halting_vectors"])
BORGI_CLIP = (0.001, 0.999)
BORGI_NAMES = {
    "Normal": "gaussian",
    "Laplace": "laplace",
    "StudentT": "student_t",
    "Cauchy": "cauchy",
}
MIXTURES = tuple(
    zip(
        GOLDEN["borgi/mixture_target_depths"],
        GOLDEN["borgi/mixture_scalings"],
        GOLDEN["borgi/mixture_weights"],
        strict=True,
    )
)


def nvlabs(name: str, depth: int = 12, target_depth: float = 8) -> np.ndarray:
    return depth_prior(depth, name, target_depth=target_depth, compat="nvlabs")


def borgi(name: str, target_depth: float, scale: float) -> np.ndarray:
    return depth_prior(12, name, target_depth=target_depth, scale=scale, compat="borgi")


def borgi_mixture(name: str, targets, scales, weights) -> np.ndarray:
    parts = [
        dict(name=name, target_depth=target, scale=scale, weight=weight)
        for target, scale, weight in zip(targets, scales, weights, strict=True)
    ]
    return depth_prior(12, parts, target_depth=6.0, compat="borgi")


@jax.jit
def values(targets, vectors):
    """Divergence [V, T] of each vector [V, L] from each target [T, L]."""
    of_targets = jax.vmap(divergence, in_axes=(0, None))
    return jax.vmap(of_targets, in_axes=(None, 0))(targets, vectors)


@jax.jit
def gradients(targets, vectors):
    """Gradient [V, T, L] of `values` with respect to the vectors."""
    of_targets = jax.vmap(jax.grad(divergence, argnums=1), in_axes=(0, None))
    return jax.vmap(of_targets, in_axes=(None, 0))(targets, vectors)


@jax.jit
def borgi_values(targets, vectors):
    """The same with Borgi's clipping."""
    of_targets = jax.vmap(lambda t, v: divergence(t, v, clip=BORGI_CLIP), in_axes=(0, None))
    return jax.vmap(of_targets, in_axes=(None, 0))(targets, vectors)


def assert_gradients_close(found, expected):
    """Within 1e-4 of the largest entry of each vector's gradient."""
    largest = np.abs(expected).max(-1, keepdims=True)
    np.testing.assert_array_less(np.abs(found - expected) / (largest + 1e-12), 1e-4)


@pytest.mark.parametrize("name, key", [("gaussian", "gaussian"), ("lognormal", "lognorm")])
def test_nvlabs_targets_equal_the_recorded(name, key):
    raws, scaleds = GOLDEN[f"avit/{key}_raw"], GOLDEN[f"avit/{key}_standardized"]
    for target_depth, raw, scaled in zip(TARGETS, raws, scaleds, strict=True):
        found = np.exp(nvlabs_log_density(name, 12, float(target_depth)))
        np.testing.assert_allclose(found, raw, rtol=1e-12)
        np.testing.assert_allclose(nvlabs(name, 12, target_depth), scaled, rtol=1e-12)


def test_nvlabs_skew_normal_equals_the_recorded_and_goes_on_to_the_last_layer():
    for key in ("avit/skewnorm_raw", "avit/skewnorm_standardized"):
        for target_depth, expected in zip(TARGETS, GOLDEN[key], strict=True):
            found = nvlabs("skew_normal", 12, target_depth)
            assert found.shape == (12,)
            np.testing.assert_allclose(found[:-1], expected, rtol=1e-9, atol=1e-30)


def test_nvlabs_gaussian_equals_the_recorded_at_other_lengths_and_by_default():
    for depth, target_depth in ((6, 4), (24, 16)):
        expected = GOLDEN[f"avit/gaussian_standardized_length{depth}_depth{target_depth}"]
        np.testing.assert_allclose(nvlabs("gaussian", depth, target_depth), expected, rtol=1e-12)
    np.testing.assert_allclose(nvlabs("gaussian"), GOLDEN["avit/default"], rtol=1e-12)


def test_the_buffer_of_the_nvlabs_scaling_equals_the_recorded():
    for d, expected in zip(TARGETS, GOLDEN["avit/gaussian_standardized_buffer0.1"], strict=True):
        found = nvlabs_standardize(nvlabs_log_density("gaussian", 12, d), d, buffer=0.1)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nvlabs_counts_its_target_from_zero():
    assert nvlabs("gaussian", 12, 8).argmax() == 8  # layer 9


@pytest.mark.parametrize("target_depth", [0.5, 1000.0])
def test_nvlabs_targets_far_away_stay_finite(target_depth):
    assert np.isfinite(nvlabs("gaussian", 12, target_depth)).all()


@pytest.mark.parametrize("family", BORGI_NAMES)
def test_borgi_densities_equal_the_recorded(family):
    recorded = GOLDEN[f"borgi/unimodal_{family}_logprob"]
    for target_depth, rows in zip(TARGETS, recorded, strict=True):
        for scale, expected in zip(SCALINGS, rows, strict=True):
            found = np.log(borgi(BORGI_NAMES[family], target_depth, scale))
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("family", BORGI_NAMES)
def test_borgi_mixtures_equal_the_recorded(family):
    for mixture, expected in zip(MIXTURES, GOLDEN[f"borgi/mixture_{family}_logprob"], strict=True):
        found = np.log(borgi_mixture(BORGI_NAMES[family], *mixture))
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_nvlabs_divergences_equal_the_recorded():
    standardized = np.stack([nvlabs("gaussian", 12, d) for d in TARGETS])
    raw = np.exp([nvlabs_log_density("gaussian", 12, float(d)) for d in TARGETS])
    lognormal = np.stack([nvlabs("lognormal", 12, d) for d in TARGETS])
    for targets, key in (
        (standardized, "kl/avit_gaussian_standardized"),
        (raw, "kl/avit_gaussian_raw"),
        (lognormal, "kl/avit_lognorm_standardized"),
    ):
        np.testing.assert_allclose(values(targets, VECTORS), GOLDEN[key], rtol=1e-5, atol=1e-6)
    expected = GOLDEN["kl/avit_gaussian_standardized_grad"]
    assert_gradients_close(gradients(standardized, VECTORS), expected)


@pytest.mark.parametrize("family", BORGI_NAMES)
def test_borgi_divergences_equal_the_recorded(family):
    name = BORGI_NAMES[family]
    for column, scale in enumerate(SCALINGS):
        targets = np.stack([borgi(name, d, scale) for d in TARGETS])
        expected = GOLDEN[f"kl/borgi_unimodal_{family}"][:, :, column]
        np.testing.assert_allclose(borgi_values(targets, VECTORS), expected, rtol=1e-5, atol=1e-6)
    targets = np.stack([borgi_mixture(name, *mixture) for mixture in MIXTURES])
    expected = GOLDEN[f"kl/borgi_mixture_{family}"]
    np.testing.assert_allclose(borgi_values(targets, VECTORS), expected, rtol=1e-5, atol=1e-6)


def test_borgi_gradients_equal_the_recorded():
    gradient = jax.jit(jax.grad(lambda v, t: divergence(t, v, clip=BORGI_CLIP)))
    recorded = GOLDEN["kl/borgi_unimodal_Normal_grad"]
    for row, vector in enumerate(VECTORS):
        for i, target_depth in enumerate(TARGETS):
            for j, scale in enumerate(SCALINGS):
                found = gradient(vector, borgi("gaussian", target_depth, scale))
                assert_gradients_close(found, recorded[row, i, j])


@pytest.mark.parametrize(
    "prior, options, message",
    [
        ("cauchy", dict(compat="nvlabs"), r"'cauchy' does not exist.*gaussian, lognormal, skew_"),
        ("gaussian", dict(compat="nvlabs", scale=2.0), r"scale 2.*fixed.*write scale 1\.0"),
        ("gaussian", dict(compat="nvlabs", target_depth=0.0), r"target_depth 0.*more than 0"),
        ("lognormal", dict(compat="nvlabs", target_depth=1.0), r"target_depth 1.*more than 1"),
        ("lognormal", dict(compat="nvlabs", depth=1), r"zero in layer 1.*1 layer:"),
        (
            [dict(name="gaussian"), dict(name="gaussian")],
            dict(compat="nvlabs"),
            r"2 components, but prior_compat 'nvlabs' knows no mixtures",
        ),
        ("geometric", dict(compat="borgi"), r"'geometric' does not exist.*'borgi'.*student_t"),
    ],
)
def test_what_an_implementation_does_not_have_is_named(prior, options, message):
    with pytest.raises(ValueError, match=message):
        depth_prior(**{"depth": 12, "prior": prior, "target_depth": 6.0} | options)
