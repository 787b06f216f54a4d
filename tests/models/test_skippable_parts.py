"""What ran, and what share of it, of usages that are written down by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.models import skippable_parts
from avit_jax.types import Usage

LAYERS, BATCH, TOKENS, HEADS = 2, 2, 4, 3


@pytest.fixture
def usage():
    """The second image leaves out the attention of layer 1, and all of layer 2."""
    tokens = jnp.ones((LAYERS, BATCH, TOKENS), bool).at[0, 0, 1:3].set(False)
    halves = jnp.ones((LAYERS, BATCH, 2), bool).at[0, 1, 0].set(False).at[1, 1].set(False)
    heads = jnp.ones((LAYERS, BATCH, HEADS), bool).at[1, 0, 0].set(False)
    return Usage(tokens=tokens.at[1, 1].set(False), heads=heads, halves=halves)


def test_a_head_ran_where_its_attention_did(usage):
    ran = skippable_parts.ran(usage)
    assert tuple(ran) == skippable_parts.PARTS
    np.testing.assert_array_equal(ran["heads"][0], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(ran["heads"][1], [[0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(ran["halves"], usage.halves)


def test_shares_are_over_all_layers_of_an_image(usage):
    found = {name: share.tolist() for name, share in skippable_parts.shares((usage,)).items()}
    assert found["tokens"] == [6 / 8, 4 / 8]
    assert found["heads"] == pytest.approx([5 / 6, 0])
    assert found["halves"] == [1.0, 1 / 4]


def test_nothing_runs_without_a_token(usage):
    finished = usage.replace(tokens=usage.tokens.at[1, 0].set(False))
    ran = skippable_parts.ran(finished)
    assert not ran["heads"][1].any()
    assert not ran["halves"][1].any()


def test_parts_that_a_method_does_not_choose_are_not_there(usage):
    assert skippable_parts.ran(usage.replace(heads=None, halves=None)).keys() == {"tokens"}
    alone = skippable_parts.ran(usage.replace(halves=None))
    assert alone.keys() == {"tokens", "heads"}
    np.testing.assert_array_equal(alone["heads"][0], usage.heads[0])
