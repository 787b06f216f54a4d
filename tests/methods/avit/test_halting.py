"""The arithmetic of halting, for arbitrary scores: what holds for every token in every layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avit_jax.methods.avit import halting

EPS = 0.01
LAYERS, BATCH, TOKENS = 5, 2, 4
TOLERANCE = 1e-5
all_scores = arrays(
    np.float32,
    (LAYERS - 1, BATCH, TOKENS),
    elements=st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, 0.25, 0.5]),
)


@jax.jit
def run(scores):
    """All layers; the last one's score is 1. States `[L, B, N]` behind each layer, and weights."""

    def body(state, score):
        after, weight = halting.step(state, score, eps=EPS)
        return after, (after, weight)

    last = jnp.ones((1, *scores.shape[1:]))
    start = halting.start(scores.shape[1:])
    return jax.lax.scan(body, start, jnp.concatenate([scores, last]))[1]


def clear_of_threshold(scores) -> bool:
    """No running sum lies so close to 1 - eps that rounding decides."""
    return bool((np.abs(np.cumsum(scores, 0) - (1 - EPS)) > 1e-4).all())


def one_token(scores) -> tuple[halting.Halting, np.ndarray]:
    """States and weights of one token whose scores are given for all layers but the last."""
    scores = np.asarray(scores, np.float32)[:, None, None]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0, 0], run(scores))


@settings(max_examples=60, deadline=None)
@given(all_scores)
def test_the_weights_of_each_token_sum_to_1(scores):
    assume(clear_of_threshold(scores))
    _, weights = run(scores)
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=TOLERANCE)
    assert (np.asarray(weights) >= -TOLERANCE).all()


@settings(max_examples=60, deadline=None)
@given(all_scores)
def test_a_halted_token_never_comes_back_and_weighs_nothing(scores):
    states, weights = run(scores)
    live = np.concatenate([np.ones((1, BATCH, TOKENS), bool), states.live])
    assert (live[1:] <= live[:-1]).all()
    assert not live[-1].any()
    assert (np.asarray(weights)[~live[:-1]] == 0).all()


@settings(max_examples=60, deadline=None)
@given(all_scores)
def test_depth_is_the_number_of_layers_in_which_the_token_was_live(scores):
    states, _ = run(scores)
    live = np.concatenate([np.ones((1, BATCH, TOKENS)), states.live[:-1]])
    np.testing.assert_array_equal(states.halting_depth[-1], live.sum(0))


@settings(max_examples=60, deadline=None)
@given(all_scores)
def test_a_token_lives_while_its_scores_sum_to_less_than_the_threshold(scores):
    assume(clear_of_threshold(scores))
    states, _ = run(scores)
    cumulative = np.cumsum(np.concatenate([scores, np.ones((1, BATCH, TOKENS))]), 0)
    np.testing.assert_allclose(states.cumulative, cumulative, atol=TOLERANCE)
    np.testing.assert_array_equal(states.live, cumulative < 1 - EPS)


@settings(max_examples=60, deadline=None)
@given(all_scores)
def test_ponder_is_the_depth_plus_the_remainder_that_was_used(scores):
    assume(clear_of_threshold(scores))
    states, weights = run(scores)
    depth = np.asarray(states.halting_depth[-1]).astype(int)
    used = np.take_along_axis(np.asarray(weights), depth[None] - 1, axis=0)[0]
    np.testing.assert_allclose(states.ponder[-1], depth + used, atol=TOLERANCE)
    np.testing.assert_allclose(states.remainder[-1], used, atol=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(all_scores, st.integers(0, BATCH - 1), st.integers(0, TOKENS - 1))
def test_tokens_do_not_look_at_one_another(scores, image, token):
    changed = np.asarray(scores).copy()
    changed[:, image, token] = 1 - changed[:, image, token]
    for before, after in zip(
        jax.tree.leaves(run(scores)), jax.tree.leaves(run(changed)), strict=True
    ):
        before, after = np.array(before), np.array(after)
        before[:, image, token] = after[:, image, token] = 0
        np.testing.assert_array_equal(before, after)


def test_an_example_worked_by_hand():
    states, weights = one_token([0.3, 0.5, 0.4, 0.9])
    np.testing.assert_allclose(weights, [0.3, 0.5, 0.2, 0, 0], atol=TOLERANCE)
    np.testing.assert_array_equal(states.live, [True, True, False, False, False])
    np.testing.assert_allclose(states.cumulative, [0.3, 0.8, 1.2, 2.1, 3.1], atol=TOLERANCE)
    np.testing.assert_allclose(states.remainder, [0.7, 0.2, 0.2, 0.2, 0.2], atol=TOLERANCE)
    np.testing.assert_allclose(states.ponder, [1, 2, 3.2, 3.2, 3.2], atol=TOLERANCE)
    np.testing.assert_array_equal(states.halting_depth, [2, 3, 3, 3, 3])


def test_a_token_that_never_scores_runs_through_and_its_last_state_is_its_output():
    states, weights = one_token([0, 0, 0, 0])
    np.testing.assert_array_equal(weights, [0, 0, 0, 0, 1])
    assert (states.halting_depth[-1], states.ponder[-1]) == (5, 6)


def test_a_token_that_scores_1_at_once_halts_behind_the_first_layer():
    states, weights = one_token([1, 0, 0, 0])
    np.testing.assert_array_equal(weights, [1, 0, 0, 0, 0])
    assert (states.halting_depth[-1], states.ponder[-1]) == (1, 2)


def test_exactly_the_threshold_ends_a_token_without_its_remainder_as_published():
    state, weight = halting.step(halting.start((1, 1)), jnp.full((1, 1), 0.75), eps=0.25)
    assert not state.live[0, 0]
    assert (weight[0, 0], state.ponder[0, 0], state.halting_depth[0, 0]) == (0, 1, 1)


@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_a_larger_eps_halts_earlier(eps):
    state, _ = halting.step(halting.start((1, 1)), jnp.full((1, 1), 0.8), eps=eps)
    assert bool(state.live[0, 0]) == (eps == 0.01)


def test_gradients_of_ponder_come_through_the_remainder_alone():
    scores = jnp.array([0.3, 0.5, 0.4, 0.9])[:, None, None]
    gradient = jax.grad(lambda scores: run(scores)[0].ponder[-1].sum())(scores)
    # ponder = 3 + (1 - 0.3 - 0.5): the two scores before halting count -1 each, the others nothing.
    np.testing.assert_array_equal(gradient[:, 0, 0], [-1, -1, 0, 0])


def test_gradients_of_the_weights_are_those_of_scores_and_remainder():
    scores = jnp.array([0.3, 0.5, 0.4, 0.9])[:, None, None]
    jacobian = jax.jacobian(lambda scores: run(scores)[1][:, 0, 0])(scores)[:, :, 0, 0]
    expected = np.zeros((5, 4))
    expected[0, 0] = expected[1, 1] = 1
    expected[2, :2] = -1
    np.testing.assert_array_equal(jacobian, expected)


def test_masks_and_counters_carry_no_gradient():
    scores = jnp.full((4, 1, 1), 0.3)
    gradient = jax.grad(lambda scores: run(scores)[0].halting_depth[-1].sum())(scores)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("cumulative", [0.0, 0.7])
def test_a_score_that_is_nan_does_not_halt_a_live_token_nor_wake_a_halted_one(cumulative):
    state = halting.start((1, 2))
    state = state.replace(
        live=jnp.array([[True, False]]), cumulative=jnp.full((1, 2), cumulative, jnp.float32)
    )
    after, _ = jax.jit(lambda score: halting.step(state, score, eps=0.01))(
        jnp.full((1, 2), jnp.nan)
    )
    np.testing.assert_array_equal(after.live, [[True, False]])


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("weight", [0.0, 0.3, jnp.nan])
def test_what_runs_adds_whatever_it_is_and_what_does_not_adds_nothing(value, weight):
    live = jnp.array([[True, True], [False, True]])
    weights, states = jnp.full((2, 2), weight), jnp.full((2, 1, 3), value)
    added = jax.jit(halting.contribution)(live, weights, states)
    assert not np.isfinite(added[0]).any()
    np.testing.assert_array_equal(added[1], 0)
