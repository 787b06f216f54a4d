"""Halting rules on scores: every setting as read a second time by hand, and what always holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import avit_jax
from avit_jax.errors import UserError
from avit_jax.methods.avit import halting, spread
from avit_jax.methods.avit.rules import Rules, may_halt
from tests.methods.avit.halting_by_hand import by_hand

LAYERS, BATCH, GRID = 5, 2, 4
SPREADS = ("none", "nearby", "cross", "diagonal", "dilated", "square", "isotropic", "circle")
CONTENT = jnp.arange(BATCH, dtype=jnp.uint32) + 7


def create(distilled=False, **method):
    return avit_jax.create_model(
        "avit_tiny_patch16_224", image_size=8 * GRID, patch_size=8, embed_dim=24, depth=LAYERS,
        num_heads=3, num_classes=3, distilled=distilled, method=method,
    )  # fmt: skip


def run(model, scores):
    """All layers on given scores: the state behind the last, who was live, and weights."""
    layers = model.layers
    rules = Rules(shape=model.shape, settings=model.settings, layers=layers, content=CONTENT)
    state, live, weights = halting.start(scores.shape[1:]), [], []
    counts = np.arange(1, LAYERS + 1) >= model.settings.halt_from
    for layer in range(layers):
        live.append(state.live)
        state, weight = rules.step(state, jnp.asarray(scores[layer] * counts[layer]), layer)
        weights.append(weight)
    return state, np.stack(live), np.stack(weights)


def drawn(model):
    """The draws of `run`, `[L, B, patches]`, by a second calculation of the share."""
    own = model.settings
    shares = [
        own.spread_share - own.spread_decay * (n - own.spread_from + 1) for n in range(LAYERS)
    ]
    return np.stack(
        [spread.draws(CONTENT, layer, share, GRID**2) for layer, share in enumerate(shares)]
    )


@st.composite
def rules(draw):
    """Settings of every rule at once."""
    most = draw(st.integers(1, LAYERS))
    layer = st.integers(1, most)
    first = draw(layer)
    return {
        "eps": draw(st.sampled_from([0.01, 0.2])),
        "max_depth": draw(st.sampled_from([None, most])) if most == LAYERS else most,
        "min_depth": draw(layer),
        "halt_from": draw(layer),
        "class_tokens_halt": draw(st.sampled_from([None, True, False])),
        "spread": draw(st.sampled_from(SPREADS)),
        "spread_share": draw(st.sampled_from([1.0, 0.5])),
        "spread_decay": draw(st.sampled_from([0.0, 0.1])),
        "spread_from": first,
        "spread_until": draw(st.none() | st.integers(first, most)),
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rules(), st.booleans(), st.integers(0, 1000))
def test_rules_are_those_read_by_hand_whatever_they_are_set_to(method, distilled, seed):
    model = create(distilled, **method)
    generator = np.random.default_rng(seed)
    scores = generator.beta(0.6, 1.2, (LAYERS, BATCH, model.shape.num_tokens)).astype(np.float32)
    draws = drawn(model) if model.settings.draws_spread else None
    expected = by_hand(model, scores, draws)
    # Sums that lie so near the threshold that rounding decides are none to compare.
    sums = np.cumsum(expected["weights"], 0) - (1 - method["eps"])
    assume((np.abs(sums[expected["live"][: len(sums)]]) > 1e-5).all())
    state, live, weights = run(model, scores)
    layers = model.layers
    np.testing.assert_array_equal(live, expected["live"][:layers])
    np.testing.assert_allclose(weights, expected["weights"][:layers], atol=1e-5)
    np.testing.assert_allclose(state.ponder, expected["ponder"], atol=1e-5)
    np.testing.assert_array_equal(state.halting_depth, expected["depth"])
    # What holds for each token, whatever the rules.
    np.testing.assert_allclose(weights.sum(0), 1.0, atol=1e-5)
    assert weights.min() > -1e-6 and not state.live.any()
    assert (live[1:] <= live[:-1]).all()
    np.testing.assert_array_equal(live.sum(0), state.halting_depth)
    np.testing.assert_allclose(state.ponder, live.sum(0) + state.remainder, atol=1e-5)
    assert live.sum(0).min() >= method["min_depth"]
    if method["class_tokens_halt"] is False:
        prefix = model.shape.num_prefix_tokens
        np.testing.assert_array_equal(weights[-1, :, :prefix], 1.0)


@pytest.mark.parametrize("name", ["cross", "double_square"])
def test_who_was_taken_along_takes_nobody(name):
    """One source in a corner: what its neighbours would reach stays, in this layer and later."""
    model = create(spread=name)
    scores = np.zeros((LAYERS, BATCH, 1 + GRID**2), np.float32)
    scores[1, 0, 1] = 1.0
    _, live, _ = run(model, scores)
    reached = {"cross": 2, "double_square": 8}[name]
    assert [int(layer[0].sum()) for layer in live] == [17, 17, *[16 - reached] * 3]
    assert live[:, 1].all()


def test_a_score_of_halted_tokens_takes_nobody_along_later():
    model = create(spread="cross", spread_from=3)
    scores = np.zeros((LAYERS, BATCH, 1 + GRID**2), np.float32)
    scores[1:, 0, 6] = 1.0  # halts before anything spreads
    _, live, _ = run(model, scores)
    assert live.sum() == BATCH * LAYERS * 17 - 3


def test_gradients_of_held_and_taken_tokens_are_finite():
    model = create(min_depth=3, spread="cross", class_tokens_halt=False)

    def loss(scores):
        state, weights = halting.start(scores.shape[1:]), []
        rules = Rules(shape=model.shape, settings=model.settings, layers=LAYERS)
        for layer in range(LAYERS):
            state, weight = rules.step(state, scores[layer], layer)
            weights.append(weight)
        return (jnp.stack(weights) ** 2).sum() + state.ponder.sum()

    scores = jnp.asarray(np.random.default_rng(0).random((LAYERS, BATCH, 17)), jnp.float32)
    gradient = jax.jit(jax.grad(loss))(scores)
    assert np.isfinite(gradient).all() and np.abs(gradient[:, :, 1:]).max() > 0
    assert not gradient[:, :, 0].any()  # of an exempt token nothing depends on its scores


def test_a_held_score_that_is_not_a_number_stays_one():
    model = create(min_depth=3)
    rules = Rules(shape=model.shape, settings=model.settings, layers=LAYERS)
    _, weight = rules.step(halting.start((1, 17)), jnp.full((1, 17), jnp.nan), 0)
    assert np.isnan(weight).all()


def test_gates_of_layers_add_up():
    model = create(gate_center=1.0, gate_scale=2.0, layer_centers=(0.0, 0.5, -1.0, 0.0, 2.0))
    learnt = jnp.asarray([0.25, 0.0, 0.0, 0.0, -1.0])
    rules = functools.partial(Rules, shape=model.shape, settings=model.settings, layers=LAYERS)
    x = jnp.full((1, 2, 3), 0.5)
    found = [float(rules(offsets=learnt).score(x, layer)[0, 0]) for layer in range(LAYERS)]
    expected = 1 / (1 + np.exp([0.25, 0.5, -1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    traced = jax.jit(lambda layer: rules(offsets=learnt).score(x, layer))(1)
    assert float(traced[0, 0]) == pytest.approx(expected[1], rel=1e-6)


def test_class_tokens_halt_as_published_unless_they_may_not():
    for distilled in (False, True):
        stays = create(distilled, class_tokens_halt=False)
        assert may_halt(stays.shape, stays.settings).tolist() == (
            [False] * (1 + distilled) + [True] * GRID**2
        )
        assert may_halt(stays.shape, create().settings).all()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"min_depth": 6}, "min_depth is 6, but 5 layers"),
        ({"min_depth": 4, "max_depth": 3}, "min_depth is 4, but 3 layers"),
        ({"max_depth": 0}, "max_depth is 0"),
        ({"max_depth": 2.5}, "max_depth is 2.5"),
        ({"halt_from": 9}, "halt_from is 9"),
        ({"spread_from": 3, "spread_until": 2}, "spread_until is 2, but spread_from is 3"),
        ({"spread_share": 1.5}, "spread_share is 1.5"),
        ({"spread_decay": -1.0}, "spread_decay is -1.0"),
        ({"spread": "star"}, "spread is 'star': write one of none"),
        ({"layer_centers": (1.0, 2.0)}, "layer_centers has 2 numbers, but the model has 5 layers"),
        ({"layer_centers": "high"}, "layer_centers is 'high'"),
        ({"layer_centers": (1.0, float("nan"), 0.0, 0.0, 0.0)}, "finite number for each layer"),
        ({"class_tokens_halt": "no"}, "class_tokens_halt is 'no'"),
    ],
)
def test_rules_that_cannot_be_are_refused_in_a_sentence(method, message):
    with pytest.raises(UserError, match=message):
        create(**method)
