"""Losses of the usage against the same sums written out in NumPy, and settings that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.errors import UserError
from avit_jax.methods.adavit import usage_losses
from avit_jax.methods.adavit.usage_losses import UsageLoss

LAYERS, BATCH, HEADS, TOKENS = 3, 4, 2, 5
LOSS = UsageLoss(target=0.7, diversity=0.3, entropy=0.2, minimum=0.6, minimum_weight=0.4)
TARGET = 0.8  # of this moment of the training, not the one at the end


@pytest.fixture(scope="module")
def decided():
    """Decisions over heads, halves and tokens, and logits; one block without any half."""
    generator = np.random.default_rng(0)
    heads, halves, tokens = (
        (generator.random((LAYERS, BATCH, size)) < 0.6).astype(np.float32)
        for size in (HEADS, 2, TOKENS)
    )
    halves[1] = 0
    return heads, halves, tokens, generator.normal(size=(2, LAYERS, BATCH, 2)).astype(np.float32)


def entropy_by_hand(logits):
    yes = 1 / (1 + np.exp(-logits))
    return -(yes * np.log(yes) + (1 - yes) * np.log(1 - yes)).mean()


def shortfall(usage):
    return np.maximum(0, LOSS.minimum - usage).sum()


def test_heads_count_in_blocks_that_run(decided):
    heads, halves, _, (logits, _) = decided
    runs = np.broadcast_to(halves.sum(-1, keepdims=True) > 0, heads.shape)
    each = (heads * runs).sum(1) / (runs.sum(1) + 1e-6)
    expected = (
        abs((heads * runs).sum() / runs.sum() - TARGET)
        + LOSS.diversity * np.abs(each - TARGET).mean()
        - LOSS.entropy * entropy_by_hand(logits)
        + LOSS.minimum_weight * shortfall(each)
    )
    found = usage_losses.heads_loss(heads, logits, halves, LOSS, TARGET)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not np.isclose(found, usage_losses.heads_loss(heads, logits, None, LOSS, TARGET))


def test_without_a_policy_over_halves_every_head_counts(decided):
    heads, halves, _, (logits, _) = decided
    everything = usage_losses.heads_loss(heads, logits, np.ones_like(halves), LOSS, TARGET)
    found = usage_losses.heads_loss(heads, logits, None, LOSS, TARGET)
    np.testing.assert_allclose(found, everything, rtol=1e-6)


def test_diversity_of_halves_is_of_blocks_and_their_minimum_of_halves(decided):
    _, halves, _, (_, logits) = decided
    expected = (
        abs(halves.mean() - TARGET)
        + LOSS.diversity * np.abs(halves.mean((1, 2)) - TARGET).mean()
        - LOSS.entropy * entropy_by_hand(logits)
        + LOSS.minimum_weight * shortfall(halves.mean(1))
    )
    found = usage_losses.layers_loss(halves, logits, LOSS, TARGET)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tokens_are_held_by_a_square_and_a_minimum_of_each_image(decided):
    tokens = decided[2]
    expected = (tokens.mean() - TARGET) ** 2
    expected += LOSS.minimum_weight * shortfall(tokens.mean(2)) / BATCH
    found = usage_losses.tokens_loss(tokens, LOSS, TARGET)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    twice = usage_losses.tokens_loss(np.concatenate([tokens, tokens], axis=1), LOSS, TARGET)
    np.testing.assert_allclose(twice, found, rtol=1e-5)


def test_entropy_and_its_gradient_stay_finite_for_the_surest_logits():
    logits = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    np.testing.assert_allclose(usage_losses.entropy(logits), [0, 0, np.log(2), 0, 0], atol=1e-6)
    gradient = jax.grad(lambda x: usage_losses.entropy(x).sum())(logits)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_a_config_gives_some_weights_and_the_rest_are_the_defaults():
    assert usage_losses.of({"target": 0.3}, "heads_loss") == UsageLoss(target=0.3)
    assert usage_losses.of(LOSS, "heads_loss") is LOSS
    with pytest.raises(
        UserError, match="heads_loss has no goal: valid settings are weight, target"
    ):
        usage_losses.of({"goal": 0.3}, "heads_loss")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"target": 1.5}, "target is 1.5: write a share, from 0 to 1"),
        ({"minimum": -0.1}, "minimum is -0.1: write a share"),
        ({"weight": float("inf")}, "weight is inf: write 0 or more"),
        ({"diversity": float("nan")}, "diversity is nan: write 0 or more"),
    ],
)
def test_weights_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        UsageLoss(**settings)
