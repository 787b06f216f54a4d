"""What a block's gates leave out, against the same computation written out by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.models.layers import hidden_heads
from avit_jax.types import HEAD_EFFECTS, Gates
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

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SOME = jnp.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]])
HALF_OPEN = jnp.array([[1, 0, 0.5], [0, 1, 1]])


@pytest.fixture(scope="module")
def block():
    return block_of()


@pytest.fixture(scope="module")
def x():
    return random(BATCH, TOKENS, DIM, seed=100)


@pytest.mark.parametrize("effect", HEAD_EFFECTS)
def test_open_gates_change_nothing(block, x, effect):
    gates = Gates(
        tokens=jnp.ones((BATCH, TOKENS)),
        selected=jnp.ones((BATCH, TOKENS)),
        heads=jnp.ones((BATCH, HEADS)),
        halves=jnp.ones((BATCH, 2)),
        head_effect=effect,
    )
    np.testing.assert_allclose(both(block, x, gates=gates), both(block, x), atol=1e-5)


def test_masked_tokens_never_influence_live_ones(block, x):
    live = jnp.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]])
    other = jnp.where(live[:, :, None] > 0, x, random(*x.shape, seed=5) * 100)
    found, changed = (both(block, tokens, gates=Gates(tokens=live)) for tokens in (x, other))
    np.testing.assert_array_equal(found[live > 0], changed[live > 0])
    assert not np.allclose(found[live == 0], changed[live == 0])


def test_live_tokens_come_out_as_if_the_masked_ones_were_not_there(block, x):
    live = jnp.array([[1, 1, 0, 1, 0]] * BATCH)
    found = both(block, x, gates=Gates(tokens=live))[:, jnp.array([0, 1, 3])]
    alone = both(block, x[:, jnp.array([0, 1, 3])])
    np.testing.assert_allclose(found, alone, atol=1e-4)


def test_masked_tokens_enter_as_zeros(block, x):
    live = jnp.zeros((BATCH, TOKENS)).at[:, 0].set(1)
    keys = np.asarray(live > 0)
    normed = np.where(keys[:, :, None], norm(block.norm1, x), 0)
    np.testing.assert_allclose(
        block.attend(x, gates=Gates(tokens=live)),
        x + attention_by_hand(block.attention, normed, keys=keys[:, None, :]),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_image_without_a_live_token_stays_finite_and_so_do_its_gradients(dtype):
    block = block_of(dtype=dtype)
    gates = Gates(tokens=jnp.zeros((BATCH, TOKENS)).at[0].set(1))
    tokens = random(BATCH, TOKENS, DIM).astype(dtype)
    program = jax.jit(jax.value_and_grad(lambda x: both(block, x, gates=gates).sum()))
    value, gradient = program(tokens)
    chex.assert_tree_all_finite((value, gradient))


def test_branches_scale_the_update_of_each_half(block, x):
    halves = jnp.array([[1, 0], [0.25, 0.5]])
    for number, half in enumerate((block.attend, block.feed)):
        update = half(x) - x
        np.testing.assert_allclose(
            half(x, gates=Gates(halves=halves)),
            x + update * halves[:, number, None, None],
            atol=1e-5,
        )


def test_tokens_that_sit_out_stay_as_they_are_and_nobody_attends_to_them(block, x):
    found = both(block, x, gates=Gates(selected=SOME))
    np.testing.assert_array_equal(found[SOME == 0], x[SOME == 0])
    for image, selected in enumerate(SOME):
        there = np.flatnonzero(selected)
        alone = both(block, x[image : image + 1, there])
        np.testing.assert_allclose(found[image, there], alone[0], **CLOSE)


def test_selected_tokens_scale_their_update_and_the_others_would_attend_to_themselves(block, x):
    selected = jnp.array([[1, 0.5, 0, 1, 0], [1, 0, 0.25, 1, 1]])
    keys = np.asarray(selected > 0)[:, None, :] & np.asarray(selected > 0)[:, :, None]
    keys = keys | np.eye(TOKENS, dtype=bool)
    updates = (
        attention_by_hand(block.attention, norm(block.norm1, x), keys=keys),
        mlp_by_hand(block.mlp, norm(block.norm2, x)),
    )
    weights = random(*x.shape, seed=11)
    for half, update in zip((block.attend, block.feed), updates, strict=True):
        found = half(x, gates=Gates(selected=selected))
        np.testing.assert_allclose(found, x + selected[:, :, None] * update, **CLOSE)
        # What a token would have gained is told to the policy that left it out.
        loss = jax.grad(lambda s, half=half: (half(x, gates=Gates(selected=s)) * weights).sum())
        np.testing.assert_allclose(loss(selected), (weights * update).sum(-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("effect", HEAD_EFFECTS)
def test_a_head_takes_with_it_what_its_effect_says(block, x, effect):
    gates = Gates(heads=HALF_OPEN, head_effect=effect)
    identity = effect == "attention"
    attended = attention_by_hand(
        block.attention, norm(block.norm1, x), heads=HALF_OPEN, identity=identity
    )
    np.testing.assert_allclose(block.attend(x, gates=gates), x + attended, **CLOSE)
    channels = np.repeat(HALF_OPEN, DIM // HEADS, axis=1)[:, None]
    units = np.repeat(HALF_OPEN, block.mlp.fc1.out_features // HEADS, axis=1)[:, None]
    fed = mlp_by_hand(
        block.mlp,
        norm(block.norm2, x) * (channels if effect == "channels" else 1.0),
        units=units if effect == "hidden" else 1.0,
    )
    np.testing.assert_allclose(block.feed(x, gates=gates), x + fed, **CLOSE)


@pytest.mark.parametrize(("hidden", "heads", "ratio"), [(48, 3, 2.0), (20, 3, 20 / 12)])
def test_hidden_units_belong_to_the_head_of_the_channel_below_them(hidden, heads, ratio):
    dim = round(hidden / ratio)
    channel = np.floor(np.arange(hidden) / ratio).astype(int)
    np.testing.assert_array_equal(hidden_heads(hidden, heads), channel // (dim // heads))


@pytest.mark.parametrize("effect", HEAD_EFFECTS)
def test_gradients_reach_every_gate_but_the_tokens(block, x, effect):
    gates = Gates(
        tokens=jnp.full((BATCH, TOKENS), 0.7),
        selected=jnp.full((BATCH, TOKENS), 0.7),
        heads=jnp.full((BATCH, HEADS), 0.7),
        halves=jnp.full((BATCH, 2), 0.7),
        head_effect=effect,
    )
    weights = random(*x.shape, seed=11)
    loss = jax.jit(jax.grad(lambda gates: (both(block, x, gates=gates) * weights).sum()))
    gradient = loss(gates)
    np.testing.assert_array_equal(gradient.tokens, 0.0)
    for name in ("selected", "heads", "halves"):
        assert (np.asarray(getattr(gradient, name)) != 0).all(), name
