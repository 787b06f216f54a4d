"""The block against the same computation written out by hand, and what is random in it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax.models.layers import drop_path, dropout, gated
from avit_jax.types import Gates
from tests.models.by_hand import (
    BATCH,
    DIM,
    HEADS,
    TOKENS,
    attention_by_hand,
    block_of,
    both,
    mlp_by_hand,
    norm,
    random,
)

EXTRA = 6


@pytest.fixture(scope="module")
def block():
    return block_of()


@pytest.fixture(scope="module")
def wide_block():
    return block_of(extra_dim=EXTRA)


@pytest.fixture(scope="module")
def x():
    return random(BATCH, TOKENS, DIM, seed=100)


def test_an_open_block_is_the_pre_norm_transformer(block, x):
    attended = x + attention_by_hand(block.attention, norm(block.norm1, x))
    np.testing.assert_allclose(block.attend(x), attended, rtol=1e-4, atol=1e-4)
    fed = attended + mlp_by_hand(block.mlp, norm(block.norm2, attended))
    np.testing.assert_allclose(both(block, x), fed, rtol=1e-4, atol=2e-4)


def test_extra_channels_join_in_front_of_the_norm_and_no_head_gate_touches_them(wide_block, x):
    extra = random(BATCH, TOKENS, EXTRA, seed=7)
    normed = norm(wide_block.norm2, np.concatenate([x, extra], axis=-1))
    np.testing.assert_allclose(
        wide_block.feed(x, extra=extra),
        x + mlp_by_hand(wide_block.mlp, normed),
        rtol=1e-4,
        atol=1e-4,
    )
    gated = normed.copy()
    gated[..., :DIM] = 0
    np.testing.assert_allclose(
        wide_block.feed(x, extra=extra, gates=Gates(heads=jnp.zeros((BATCH, HEADS)))),
        x + mlp_by_hand(wide_block.mlp, gated),
        rtol=1e-4,
        atol=1e-4,
    )


def attended(block, x, **options):
    query, key, value = block.attention.project(x)
    return block.attention.finish(block.attention.mix(query, key, value, **options))


def test_a_bias_is_added_to_the_scores_and_masked_keys_stay_masked(block, x):
    bias = 3 * random(BATCH, HEADS, TOKENS, TOKENS, seed=8)
    keys = np.array([[True, True, False, True, True], [True] * 5])
    np.testing.assert_allclose(
        attended(block, x, live=jnp.asarray(keys), bias=bias),
        attention_by_hand(block.attention, x, bias=bias, keys=keys[:, None, :]),
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        block.attend(x, bias=bias),
        x + attended(block, block.norm1(x), bias=bias),
        atol=1e-5,
    )


@pytest.mark.parametrize("gated", [False, True])
def test_scores_are_those_whose_softmax_the_attention_uses(block, x, gated):
    attention = block.attention
    heads = jnp.array([[1, 0, 0.5], [0.25, 1, 1]]) if gated else jnp.ones((BATCH, HEADS))
    bias = random(BATCH, HEADS, TOKENS, TOKENS, seed=9)
    query, key, value = attention.project(x, heads=heads)
    scores = attention.scores(query, key, bias)
    chex.assert_shape(scores, (BATCH, HEADS, TOKENS, TOKENS))
    assert scores.dtype == jnp.float32
    mixed = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), value)
    np.testing.assert_allclose(
        attention.finish(mixed),
        attention.finish(attention.mix(query, key, value, bias=bias)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_block_hands_out_the_scores_that_it_used(block, x):
    bias = random(BATCH, HEADS, TOKENS, TOKENS, seed=9)
    after, scores = block.attend_and_score(x, bias=bias)
    np.testing.assert_array_equal(after, block.attend(x, bias=bias))
    query, key, _ = block.attention.project(block.norm1(x))
    np.testing.assert_allclose(scores(), block.attention.scores(query, key) + bias, atol=1e-6)


def test_the_steps_for_few_tokens_are_parts_of_the_whole_projection(block, x):
    query, key, value = block.attention.project(x)
    np.testing.assert_allclose(block.attention.queries(x[:, :2]), query[:, :2], atol=1e-5)
    for found, expected in zip(block.attention.keys_values(x), (key, value), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(
        block.attention.split(block.attention.join(query, key, value)), [query, key, value]
    )


def test_a_normed_input_given_by_the_caller_is_used(block, x):
    np.testing.assert_array_equal(block.attend(x, normed=block.norm1(x)), block.attend(x))
    assert not np.allclose(block.attend(x, normed=x), block.attend(x))


def test_bfloat16_arithmetic_keeps_float32_parameters():
    block = block_of(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(block))} == {jnp.dtype(jnp.float32)}
    out = both(block, random(BATCH, TOKENS, DIM).astype(jnp.bfloat16))
    assert out.dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_dropout_drops_single_entries_and_keeps_the_mean(rate):
    ones = jnp.ones((100, 20, 10))
    dropped = np.asarray(dropout(ones, rate, jax.random.key(0)))
    zero = dropped == 0
    np.testing.assert_allclose(dropped[~zero], 1 / (1 - rate), rtol=1e-6)
    assert zero.mean() == pytest.approx(rate, abs=0.015)
    assert zero.all(-1).mean() < 0.05


@pytest.mark.parametrize("rate", [0.1, 0.6])
def test_drop_path_drops_the_whole_update_of_an_image_and_keeps_the_mean(rate):
    kept = jax.random.bernoulli(jax.random.key(0), 1 - rate, (5000, 1, 1))
    dropped = np.asarray(drop_path(jnp.ones((5000, 2, 3)), rate, kept))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    images = dropped[:, 0, 0]
    np.testing.assert_allclose(images[images != 0], 1 / (1 - rate), rtol=1e-6)
    assert (images == 0).mean() == pytest.approx(rate, abs=0.03)


def test_without_a_key_nothing_is_dropped_and_a_key_decides_what_is():
    ones = jnp.ones((64, 2, 3))
    assert dropout(ones, 0.5, None) is ones
    first, again, other = (dropout(ones, 0.5, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(dropout(ones, 0.0, jax.random.key(0)), ones)


def test_both_halves_of_a_block_draw_their_own_stochastic_depth(block):
    tokens = random(64, 2, DIM, seed=12)
    options = {"drop_path_rate": 0.5, "key": jax.random.key(3)}
    attend, feed = (
        np.asarray(half(tokens, **options) == tokens).all((1, 2))
        for half in (block.attend, block.feed)
    )
    assert 0.25 < attend.mean() < 0.75
    assert 0.25 < feed.mean() < 0.75
    assert 0.25 < (attend != feed).mean() < 0.75


def test_a_block_with_dropout_is_random_with_a_key_only():
    block = block_of(dropout_rate=0.5)
    x = random(BATCH, TOKENS, DIM)
    np.testing.assert_array_equal(both(block, x), both(block, x))
    first, again, other = (both(block, x, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    update = block.feed(x, key=jax.random.key(0)) - x
    assert 0.3 < (np.asarray(update) == 0).mean() < 0.7


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, 3.0])
def test_a_bool_gate_lets_nothing_through_and_a_number_is_a_factor_with_gradient(value):
    x = jnp.array([value, value])
    np.testing.assert_array_equal(gated(x, jnp.array([True, False])), [value, 0])
    np.testing.assert_array_equal(gated(x, jnp.array([1.0, 0.5])), [value, 0.5 * value])
    gradient = jax.grad(lambda gate: gated(jnp.ones(2), gate).sum())(jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(gradient, 1)
