"""The block and its gates against the same computation written out by hand."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax.models import module
from avit_jax.models.layers import Attention, Block, BlockShape, Mlp, drop_path, dropout
from avit_jax.types import Gates

BATCH, TOKENS, DIM, HEADS = 2, 5, 24, 3
SHAPE = BlockShape(embed_dim=DIM, num_heads=HEADS, mlp_ratio=2.0)
EXTRA = 6


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def block_of(**changes) -> Block:
    """Weights large enough, and biases and scales unequal enough, for every path to show."""

    def build(rngs: nnx.Rngs) -> Block:
        return Block(dataclasses.replace(SHAPE, **changes), rngs=rngs)

    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(generator.normal(0.2, 0.3, leaf.shape), leaf.dtype)

    return module.bind(build, jax.tree.map(draw, module.abstract(build)))


@pytest.fixture(scope="module")
def block() -> Block:
    return block_of()


@pytest.fixture(scope="module")
def wide_block() -> Block:
    return block_of(extra_dim=EXTRA)


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return random(BATCH, TOKENS, DIM, seed=100)


def both(block: Block, x, **options):
    return block.feed(block.attend(x, **options), **options)


def norm(layer, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])


def dense(layer, x):
    return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def attention_by_hand(attention: Attention, x, *, heads=None, keys=None, bias=None):
    """Loops over images and heads; a gated head's q, k, v and output are all scaled."""
    x = np.asarray(x, np.float64)
    width = DIM // HEADS
    heads = np.ones((len(x), HEADS)) if heads is None else np.asarray(heads)
    out = np.zeros_like(x)
    for image, tokens in enumerate(x):
        query, key, value = np.split(dense(attention.qkv, tokens), 3, axis=-1)
        for head, gate in enumerate(heads[image]):
            part = slice(head * width, (head + 1) * width)
            scores = (gate * query[:, part]) @ (gate * key[:, part]).T / np.sqrt(width)
            if bias is not None:
                scores = scores + np.asarray(bias)[image, head]
            if keys is not None:
                scores = np.where(np.asarray(keys)[image], scores, -1e30)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            out[image, :, part] = gate * (shares @ (gate * value[:, part]))
    return dense(attention.proj, out)


def mlp_by_hand(mlp: Mlp, x):
    hidden = dense(mlp.fc1, np.asarray(x, np.float64))
    erf = np.asarray(jax.scipy.special.erf(hidden / np.sqrt(2.0)))
    return dense(mlp.fc2, hidden * (1 + erf) / 2)


def test_an_open_block_is_the_pre_norm_transformer(block, x):
    attended = x + attention_by_hand(block.attention, norm(block.norm1, x))
    np.testing.assert_allclose(block.attend(x), attended, rtol=1e-4, atol=1e-4)
    fed = attended + mlp_by_hand(block.mlp, norm(block.norm2, attended))
    np.testing.assert_allclose(both(block, x), fed, rtol=1e-4, atol=2e-4)


def test_open_gates_change_nothing(block, x):
    gates = Gates(
        tokens=jnp.ones((BATCH, TOKENS)),
        write=jnp.ones((BATCH, TOKENS)),
        heads=jnp.ones((BATCH, HEADS)),
        branches=jnp.ones((BATCH, 2)),
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


def test_write_scales_the_update_of_each_token(block, x):
    write = jnp.array([[1, 0, 0.5, 1, 0.25], [0, 1, 1, 0.1, 1]])
    for half in (block.attend, block.feed):
        update = half(x) - x
        np.testing.assert_allclose(
            half(x, gates=Gates(write=write)), x + update * write[:, :, None], atol=1e-5
        )


def test_branches_scale_the_update_of_each_half(block, x):
    branches = jnp.array([[1, 0], [0.25, 0.5]])
    for number, half in enumerate((block.attend, block.feed)):
        update = half(x) - x
        np.testing.assert_allclose(
            half(x, gates=Gates(branches=branches)),
            x + update * branches[:, number, None, None],
            atol=1e-5,
        )


def test_heads_scale_query_key_value_output_and_the_channels_of_the_mlp(block, x):
    heads = jnp.array([[1, 0, 0.5], [0, 1, 1]])
    attended = x + attention_by_hand(block.attention, norm(block.norm1, x), heads=heads)
    np.testing.assert_allclose(
        block.attend(x, gates=Gates(heads=heads)), attended, rtol=1e-4, atol=1e-4
    )
    channels = np.repeat(heads, DIM // HEADS, axis=1)[:, None]
    fed = x + mlp_by_hand(block.mlp, norm(block.norm2, x) * channels)
    np.testing.assert_allclose(block.feed(x, gates=Gates(heads=heads)), fed, rtol=1e-4, atol=1e-4)


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


def test_a_bias_is_added_to_the_scores_and_masked_keys_stay_masked(block, x):
    bias = 3 * random(BATCH, HEADS, TOKENS, TOKENS, seed=8)
    keys = np.array([[True, True, False, True, True], [True] * 5])
    np.testing.assert_allclose(
        block.attention(x, keys=jnp.asarray(keys), bias=bias),
        attention_by_hand(block.attention, x, bias=bias, keys=keys[:, None, :]),
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(
        block.attend(x, bias=bias),
        x + block.attention(block.norm1(x), bias=bias),
        atol=1e-5,
    )


def test_a_normed_input_given_by_the_caller_is_used(block, x):
    np.testing.assert_array_equal(block.attend(x, normed=block.norm1(x)), block.attend(x))
    assert not np.allclose(block.attend(x, normed=x), block.attend(x))


@pytest.mark.parametrize("gated", [False, True])
def test_scores_are_those_whose_softmax_the_attention_uses(block, x, gated):
    attention = block.attention
    heads = jnp.array([[1, 0, 0.5], [0.25, 1, 1]]) if gated else jnp.ones((BATCH, HEADS))
    bias = random(BATCH, HEADS, TOKENS, TOKENS, seed=9)
    scores = attention.scores(x, heads=heads, bias=bias)
    chex.assert_shape(scores, (BATCH, HEADS, TOKENS, TOKENS))
    assert scores.dtype == jnp.float32
    value = attention.qkv(x)[..., 2 * DIM :].reshape(BATCH, TOKENS, HEADS, DIM // HEADS)
    value = value * heads[:, None, :, None]
    mixed = jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), value) * heads[:, None, :, None]
    np.testing.assert_allclose(
        attention.proj(mixed.reshape(x.shape)),
        attention(x, heads=heads, bias=bias),
        rtol=1e-4,
        atol=1e-4,
    )


def test_gradients_reach_every_gate_but_the_tokens(block, x):
    gates = Gates(
        tokens=jnp.full((BATCH, TOKENS), 0.7),
        write=jnp.full((BATCH, TOKENS), 0.7),
        heads=jnp.full((BATCH, HEADS), 0.7),
        branches=jnp.full((BATCH, 2), 0.7),
    )
    weights = random(*x.shape, seed=11)
    loss = jax.jit(jax.grad(lambda gates: (both(block, x, gates=gates) * weights).sum()))
    gradient = loss(gates)
    np.testing.assert_array_equal(gradient.tokens, 0.0)
    for name in ("write", "heads", "branches"):
        assert (np.asarray(getattr(gradient, name)) != 0).all(), name


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
    dropped = np.asarray(drop_path(jnp.ones((5000, 2, 3)), rate, jax.random.key(0)))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1, :1], dropped.shape))
    images = dropped[:, 0, 0]
    np.testing.assert_allclose(images[images != 0], 1 / (1 - rate), rtol=1e-6)
    assert (images == 0).mean() == pytest.approx(rate, abs=0.03)


@pytest.mark.parametrize("drop", [dropout, drop_path])
def test_without_a_key_nothing_is_dropped_and_a_key_decides_what_is(drop):
    ones = jnp.ones((64, 2, 3))
    assert drop(ones, 0.5, None) is ones
    first, again, other = (drop(ones, 0.5, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(drop(ones, 0.0, jax.random.key(0)), ones)


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
