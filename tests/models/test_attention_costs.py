"""What is counted for each kind of attention is what it multiplies."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from avit_jax.errors import UserError
from avit_jax.models import costs
from avit_jax.models.attention import Attention
from avit_jax.models.attention_kinds import KINDS
from avit_jax.models.upstream_costs import upstream_gmacs
from tests.models.test_costs import SMALL, multiply_adds, usage


@pytest.mark.parametrize("kind", KINDS)
def test_queries_and_keys_of_any_number_cost_what_mixing_them_multiplies(kind):
    attention = Attention(dataclasses.replace(SMALL, attention=kind).block, rngs=nnx.Rngs(0))
    heads, width = SMALL.num_heads, SMALL.embed_dim // SMALL.num_heads
    for queries, keys in ((1, 7), (5, 5)):
        query, key = (jnp.ones((1, count, heads, width)) for count in (queries, keys))
        jaxpr = jax.make_jaxpr(attention.mix)(query, key, key).jaxpr
        found = costs.mixing(dataclasses.replace(SMALL, attention=kind), queries, keys)
        assert multiply_adds(jaxpr) == found


def test_linear_attention_costs_twice_as_much_for_twice_the_tokens():
    linear = dataclasses.replace(SMALL, attention="linear")
    assert costs.attention(linear, 34) == 2 * costs.attention(linear, 17)
    width = SMALL.embed_dim // SMALL.num_heads
    assert costs.mixing(linear, 17, 17) == 4 * 17 * width * SMALL.embed_dim


def test_the_published_formula_is_refused_for_what_it_does_not_know():
    linear = dataclasses.replace(SMALL, attention="linear")
    with pytest.raises(UserError, match="counts softmax attention, not 'linear': use gmacs"):
        upstream_gmacs(linear, usage(SMALL, 17))
