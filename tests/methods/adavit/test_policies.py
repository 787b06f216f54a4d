"""Policies in front of the last blocks, as parameters for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.methods.adavit import policies
from avit_jax.models import functional

DEPTH, DIM = 4, 6
OUTPUTS, FIRST = {"heads": 3, "layers": 2, "tokens": 1}, {"heads": 2, "layers": 1, "tokens": 0}


def build(rngs):
    return policies.Policies(DIM, depth=DEPTH, outputs=OUTPUTS, first=FIRST, bias=2.5, rngs=rngs)


@pytest.fixture(scope="module")
def params():
    return functional.create(build, jax.random.key(0))


def test_only_blocks_that_decide_have_parameters(params):
    for kind, size in OUTPUTS.items():
        blocks = DEPTH - FIRST[kind]
        assert params[kind]["kernel"].shape == (blocks, DIM, size)
        assert params[kind]["bias"].shape == (blocks, size)


def test_a_fresh_policy_is_as_sure_as_its_bias_and_hardly_looks(params):
    for policy in params.values():
        np.testing.assert_array_equal(policy["bias"], 2.5)
        assert 0 < np.abs(policy["kernel"]).max() < 0.05


def test_blocks_without_a_policy_are_padded_in_front(params):
    per_layer = functional.bind(build, params).per_layer()
    for kind, policy in per_layer.items():
        first = FIRST[kind]
        np.testing.assert_array_equal(policy["decides"], np.arange(DEPTH) >= first)
        np.testing.assert_array_equal(policy["kernel"][:first], 0.0)
        np.testing.assert_array_equal(policy["kernel"][first:], params[kind]["kernel"])
        np.testing.assert_array_equal(policy["bias"][first:], params[kind]["bias"])


def test_the_policies_of_one_block_are_its_slices(params):
    per_layer = functional.bind(build, params).per_layer()
    for index in range(DEPTH):
        for at in (index, jnp.int32(index)):
            found = policies.at(per_layer, at)
            assert bool(found["layers"]["decides"]) == (index >= 1)
            np.testing.assert_array_equal(
                found["tokens"]["kernel"], params["tokens"]["kernel"][index]
            )


def test_logits_are_float32_whatever_the_tokens_are(params):
    policy = policies.at(functional.bind(build, params).per_layer(), DEPTH - 1)["heads"]
    x = jnp.ones((2, 5, DIM), jnp.bfloat16)
    found = policies.logits(policy, x)
    assert found.dtype == jnp.float32
    expected = np.ones((2, 5, DIM)) @ policy["kernel"] + policy["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
