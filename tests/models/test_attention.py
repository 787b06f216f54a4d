"""Attention against its definition, for few and many tokens, whatever lies where no key exists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.models import fused_attention
from avit_jax.models import softmax_attention as attention

LENGTHS = (5, 90)


def inputs(length, *, batch=2, heads=3, dim=4):
    keys = jax.random.split(jax.random.key(length), 3)
    return tuple(jax.random.normal(key, (batch, length, heads, dim)) for key in keys)


def by_definition(query, key, value, exists=None, bias=None):
    scores = jnp.einsum("bnhd,bmhd->bhnm", query, key) / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias
    if exists is not None:
        scores = jnp.where(exists[:, None, None, :], scores, -1e30)
    return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), value)


def some_keys(length):
    return jnp.arange(length) < jnp.array([length // 2 + 1, length])[:, None]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_those_of_the_definition(length, masked):
    arguments = inputs(length)
    exists = some_keys(length) if masked else None
    bias = jax.random.normal(jax.random.key(9), (2, 3, length, length))
    ours = lambda *a: attention.mix(*a, live=exists, bias=bias)  # noqa: E731
    theirs = lambda *a: by_definition(*a, exists, bias)  # noqa: E731
    np.testing.assert_allclose(ours(*arguments), theirs(*arguments), atol=1e-6)
    found, expected = (
        jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), argnums=(0, 1, 2))(*arguments)
        for f in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("garbage", [1e4, jnp.inf, jnp.nan])
def test_what_lies_where_no_key_exists_does_not_matter(length, garbage):
    query, key, value = inputs(length)
    exists = some_keys(length)
    garbage = jnp.where(exists[:, :, None, None], 0.0, garbage)
    clean = attention.mix(query, key, value, live=exists)
    dirty = attention.mix(query, key + garbage, value - garbage, live=exists)
    np.testing.assert_array_equal(clean, dirty)


def test_without_any_key_the_mean_of_all_values_comes_back():
    query, key, value = inputs(5)
    answer = attention.mix(query, key, value, live=jnp.zeros((2, 5), bool))
    expected = jnp.broadcast_to(value.mean(1, keepdims=True), value.shape)
    np.testing.assert_allclose(answer, expected, atol=1e-6)


def test_fewer_queries_than_keys():
    query, key, value = inputs(90)
    exists = some_keys(90)
    whole = attention.mix(query, key, value, live=exists)
    first = attention.mix(query[:, :1], key, value, live=exists)
    np.testing.assert_allclose(first, whole[:, :1], atol=1e-6)


def test_bfloat16_keeps_the_softmax_in_float32():
    query, key, value = (x.astype(jnp.bfloat16) for x in inputs(90))
    assert attention.scores(query, key).dtype == jnp.float32
    answer = attention.mix(query, key, value)
    assert answer.dtype == jnp.bfloat16
    np.testing.assert_allclose(answer.astype(np.float32), by_definition(*inputs(90)), atol=0.03)


@pytest.fixture
def portable_kernel(monkeypatch):
    """JAX's own implementation in place of cuDNN's, which needs a GPU to run."""
    monkeypatch.setattr(fused_attention, "_KERNEL", "xla")


@pytest.mark.usefixtures("portable_kernel")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_kernel_is_asked_for_the_same(length, masked):
    arguments = inputs(length)
    exists = some_keys(length).at[0].set(False) if masked else None
    bias = jax.random.normal(jax.random.key(9), (2, 3, length, length))
    if masked:  # where no key exists, a bias is meaningless
        bias = bias.at[0].set(0.0)
    expected = attention.mix(*arguments, live=exists, bias=bias, scale=0.3)
    found = attention.mix(*arguments, live=exists, bias=bias, scale=0.3, fused=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.usefixtures("portable_kernel")
def test_what_is_not_a_number_does_not_reach_the_fused_kernel_either():
    query, key, value = inputs(5)
    exists = some_keys(5)
    gone = jnp.where(exists[:, :, None, None], 0.0, jnp.nan)
    clean = attention.mix(query, key, value, live=exists, fused=True)
    dirty = attention.mix(query, key + gone, value + gone, live=exists, fused=True)
    np.testing.assert_array_equal(clean, dirty)


@pytest.mark.usefixtures("portable_kernel")
@pytest.mark.parametrize("length", LENGTHS)
def test_the_fused_kernel_leaves_out_what_lies_behind_an_image(length):
    query, key, value = inputs(length)
    lengths = jnp.asarray([0, max(1, length // 2)])
    exists = jnp.arange(length) < lengths[:, None]
    behind = jnp.where(exists[:, :, None, None], 0.0, 1e3)
    expected = attention.mix(query, key, value, live=exists)
    for fused in (False, True):
        found = attention.mix(query, key + behind, value, lengths=lengths, fused=fused)
        for image in range(2):
            front = slice(0, int(lengths[image]))
            np.testing.assert_allclose(found[image, front], expected[image, front], atol=1e-6)
    assert np.isfinite(found[1]).all()


@pytest.mark.usefixtures("portable_kernel")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("restriction", ["none", "live", "lengths"])
def test_gradients_of_the_fused_kernel_are_those_of_products(length, restriction):
    arguments, weights = inputs(length), jax.random.normal(jax.random.key(5), (2, length, 1, 1))
    exists = jnp.arange(length) < max(1, length - 2)
    options = {
        "none": {},
        "live": {"live": some_keys(length)},
        "lengths": {"lengths": jnp.full(2, max(1, length - 2))},
    }[restriction]
    # Answers behind an image mean nothing, so nobody asks for them.
    weights = jnp.where(exists[None, :, None, None], weights, 0.0)

    def total(fused, *arguments):
        return (attention.mix(*arguments, **options, fused=fused) * weights).sum()

    gradients = [jax.grad(total, argnums=(1, 2, 3))(fused, *arguments) for fused in (False, True)]
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_few_queries_are_no_case_for_the_kernel():
    query, key, value = inputs(5)
    expected = attention.mix(query[:, :1], key, value)
    np.testing.assert_array_equal(attention.mix(query[:, :1], key, value, fused=True), expected)
