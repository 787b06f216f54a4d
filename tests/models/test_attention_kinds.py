"""Kinds of attention against NumPy, and what each of them promises; LayerScale, too."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.execution.dense import DENSE
from avit_jax.models import linear_attention
from avit_jax.models.attention import Attention
from avit_jax.models.attention_kinds import KINDS
from avit_jax.models.block import Block
from avit_jax.models.layers import BlockShape
from avit_jax.types import HEAD_EFFECTS, Gates
from tests.models.by_hand import (
    BATCH,
    HEADS,
    SHAPE,
    TOKENS,
    attention_by_hand,
    block_of,
    both,
    mlp_by_hand,
    norm,
    random,
)

CLOSE = {"rtol": 1e-4, "atol": 2e-4}
X = random(BATCH, TOKENS, SHAPE.embed_dim, seed=100)
LIVE = np.array([[True, True, False, True, False], [True, False, True, True, True]])
CHOICES = {
    "dot, norms": {"qk_norm": True},
    "cosine": {"attention": "cosine"},
    "linear": {"attention": "linear"},
    "linear, norms, LayerScale": {"attention": "linear", "qk_norm": True, "layer_scale": 0.1},
}
each_choice = pytest.mark.parametrize("choice", CHOICES)
each_new_kind = pytest.mark.parametrize("kind", ["cosine", "linear"])


def attended(attention, x, **options):
    query, key, value = attention.project(x)
    return attention.finish(attention.mix(query, key, value, **options))


@each_choice
def test_a_block_is_the_one_written_out(choice):
    block = block_of(**CHOICES[choice])
    expected = X + attention_by_hand(block.attention, norm(block.norm1, X))
    np.testing.assert_allclose(block.attend(X), expected, **CLOSE)
    expected = expected + mlp_by_hand(block.mlp, norm(block.norm2, expected))
    np.testing.assert_allclose(both(block, X), expected, rtol=1e-4, atol=5e-4)


@each_choice
def test_masks_are_honoured_whatever_lies_where_no_key_exists(choice):
    attention = block_of(**CHOICES[choice]).attention
    expected = attention_by_hand(attention, X, keys=LIVE[:, None, :])
    np.testing.assert_allclose(attended(attention, X, live=jnp.asarray(LIVE)), expected, **CLOSE)
    query, key, value = attention.project(X)
    gone = jnp.where(LIVE[:, :, None, None], 0.0, jnp.nan)

    def total(key, value):
        return attention.mix(query, key + gone, value + gone, live=jnp.asarray(LIVE))

    clean = attention.mix(query, key, value, live=jnp.asarray(LIVE))
    np.testing.assert_array_equal(total(key, value), clean)
    for gradient in jax.grad(lambda *a: total(*a).sum(), argnums=(0, 1))(key, value):
        assert np.isfinite(gradient).all()


@each_choice
def test_gradients_are_finite_and_reach_every_parameter(choice):
    graph, params = nnx.split(block_of(**CHOICES[choice]), nnx.Param)
    gates = Gates(tokens=jnp.asarray(LIVE))

    def total(params):
        return both(nnx.merge(graph, params), X, gates=gates)[LIVE].std()

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params)):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf), path


@each_new_kind
def test_lengths_are_masks_of_what_stands_in_front_and_no_key_is_no_accident(kind):
    attention = block_of(attention=kind).attention
    query, key, value = attention.project(X)
    lengths = jnp.array([3, 0])
    live = jnp.arange(TOKENS) < lengths[:, None]
    found = attention.mix(query, key, value, lengths=lengths)
    np.testing.assert_array_equal(found, attention.mix(query, key, value, live=live))
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("kind", "effect", "bools"),
    [
        ("cosine", "channels", False),
        ("cosine", "attention", True),
        *(("linear", effect, True) for effect in HEAD_EFFECTS),
        ("linear", "channels", False),
    ],
)
def test_heads_that_are_left_out_leave_no_trace(kind, effect, bools):
    block = block_of(attention=kind, layer_scale=0.3)
    heads = np.array([[1, 0, 1], [0, 0, 0]])
    given = jnp.asarray(heads, bool if bools else jnp.float32)
    found = block.attend(X, gates=Gates(heads=given, head_effect=effect))
    expected = X + attention_by_hand(
        block.attention, norm(block.norm1, X), heads=heads, identity=effect == "attention"
    )
    np.testing.assert_allclose(found, expected, **CLOSE)


@each_choice
def test_a_few_queries_and_the_row_of_the_class_token_are_parts_of_the_whole(choice):
    attention = block_of(**CHOICES[choice]).attention
    query, key, value = attention.project(X)
    np.testing.assert_allclose(attention.queries(X[:, :2]), query[:, :2], atol=1e-5)
    for found, expected in zip(attention.keys_values(X), (key, value), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    row = attention.class_row(X)
    np.testing.assert_allclose(row.sum(-1), 1.0, rtol=1e-5)
    assert (row >= 0).all()
    mixed = jnp.einsum("bhm,bmhd->bhd", row, value)
    np.testing.assert_allclose(mixed, attention.mix(query, key, value)[:, 0], **CLOSE)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(-3.0, 8.0), st.sampled_from([1e-12, 1.0, 1e12]))
def test_scores_of_cosines_are_bounded_by_the_factor_of_the_head(seed, logit_scale, size):
    rows = size * random(2, 2, TOKENS, HEADS, 8, seed=seed)
    largest = np.abs(cosine_scores(jnp.full(HEADS, logit_scale), *rows)).max()
    assert largest <= min(math.exp(logit_scale), 100.0) * (1 + 1e-5)


@jax.jit
def cosine_scores(logit_scale, query, key):
    kind = cosine(logit_scale)
    return kind.scores(kind.query(query), kind.key(key))


def cosine(logit_scale):
    kind = KINDS["cosine"](SHAPE, rngs=nnx.Rngs(0))
    kind.logit_scale[...] = logit_scale
    return kind


def test_temperatures_start_at_10_and_no_gradient_pushes_them_beyond_100():
    query = random(BATCH, TOKENS, HEADS, 8)
    lengths = np.linalg.norm(KINDS["cosine"](SHAPE, rngs=nnx.Rngs(0)).query(query), axis=-1)
    np.testing.assert_allclose(lengths, 10.0, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda logit_scale: cosine(logit_scale).query(query).sum()))
    assert np.all(gradient(jnp.full(HEADS, 1.0)) != 0)
    np.testing.assert_array_equal(gradient(jnp.full(HEADS, 5.0)), 0.0)


@each_choice
def test_zero_rows_have_values_and_gradients(choice):
    attention = _fresh(qkv_bias=False, **CHOICES[choice])

    @jax.jit
    @jax.value_and_grad
    def total(rows):
        return (attended(attention, rows) ** 2).sum() + attention.class_row(rows)[0, 0, 0]

    for rows in (X.at[:, 1].set(0.0), jnp.zeros_like(X)):
        value, gradient = total(rows)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 0.1, 1.0, 30.0]))
def test_linear_attention_is_the_mean_by_its_explicit_weights(seed, size):
    weights, mixed, value = linear_both_ways(seed, size)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    expected = np.einsum("bhnm,bmhd->bnhd", weights, value)
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(mixed).max() <= np.abs(value).max() * (1 + 1e-5)


@jax.jit
def linear_both_ways(seed, size):
    """Weights of 4 queries and 7 keys, what is mixed without them, and the values."""
    parts = jax.random.split(jax.random.key(seed), 5)
    query = size * jax.random.normal(parts[0], (2, 4, HEADS, 8))
    key, value = (jax.random.normal(part, (2, 7, HEADS, 8)) for part in parts[1:3])
    chosen = (
        linear_attention.random_frequencies(parts[3], 8),
        linear_attention.random_phases(parts[4], 8),
    )
    mixed = linear_attention.mix(query, key, value, *chosen)
    return linear_attention.weights(query, key, *chosen), mixed, value


def test_random_features_are_a_gaussian_kernel_on_an_even_floor_on_average():
    one, other = random(2, 4, seed=3)
    frequencies = jax.vmap(linear_attention.random_frequencies, (0, None))(
        jax.random.split(jax.random.key(0), 4000), 4
    )
    across = np.einsum("kij,kil->kjl", frequencies, frequencies) * (1 - np.eye(4))
    np.testing.assert_allclose(across, 0.0, atol=1e-4)
    frequencies = frequencies.transpose(1, 0, 2).reshape(4, -1)
    phases = linear_attention.random_phases(jax.random.key(1), frequencies.shape[1])
    first, second = (linear_attention.features(x, frequencies, phases) for x in (one, other))
    distance = float(((one - other) ** 2).sum())
    expected = 1 + math.exp(-distance / (2 * 4**0.5)) / 2
    assert (first * second).mean() == pytest.approx(expected, abs=0.03)


@each_new_kind
def test_bfloat16_keeps_norms_features_and_sums_in_float32(kind):
    wide = block_of(attention=kind).attention
    low = block_of(attention=kind, dtype=jnp.bfloat16).attention
    tokens = random(1, 600, SHAPE.embed_dim, seed=4)
    found = attended(low, tokens.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    expected = np.asarray(attended(wide, tokens))
    close = 0.02 * np.abs(expected).max()
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=close)
    query, key, _ = low.project(tokens.astype(jnp.bfloat16))
    assert low.kind.weights(query, key).dtype == jnp.float32


def test_layer_scale_starts_every_update_at_its_size():
    options = {"embed_dim": 24, "num_heads": 3, "layer_scale": 1e-3}
    small = Block(BlockShape(**options), rngs=nnx.Rngs(0))
    plain = Block(BlockShape(**options | {"layer_scale": None}), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(small.attend(X) - X, 1e-3 * (plain.attend(X) - X), atol=1e-6)
    np.testing.assert_allclose(small.feed(X) - X, 1e-3 * (plain.feed(X) - X), atol=1e-6)


def _fresh(**changes) -> Attention:
    shape = BlockShape(embed_dim=SHAPE.embed_dim, num_heads=HEADS, **changes)
    return Attention(shape, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("deit_micro_patch4_32", {"attention": "sine"}, "one of dot, cosine, linear"),
        ("deit_micro_patch4_32", {"attention": "cosine", "qk_norm": True}, "leave qk_norm out"),
        ("deit_micro_patch4_32", {"layer_scale": 0.0}, "layer_scale is 0.0: write a number above"),
        ("t2t_vit_7", {"attention": "cosine", "attention_scale": 0.1}, "leave attention_scale out"),
        ("dvt_deit_tiny", {"attention": "linear"}, "set method.relation_reuse=False, or"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(name, changes, sentence):
    with pytest.raises(UserError, match=sentence) as refusal:
        create_model(name, **changes)
    assert len(str(refusal.value)) < 400


def test_linear_attention_has_no_scores_to_show_or_to_add_to():
    attention = block_of(attention="linear").attention
    query, key, value = attention.project(X)
    bias = jnp.zeros((BATCH, HEADS, TOKENS, TOKENS))
    for ask in (
        lambda: attention.scores(query, key),
        lambda: attention.mix(query, key, value, bias=bias),
    ):
        with pytest.raises(UserError, match="has no scores"):
            ask()
    create_model("dvt_deit_tiny", attention="linear", method={"relation_reuse": False})


@pytest.mark.parametrize("kernel", ["fused_attention", "ragged_attention"])
def test_kernels_for_scores_are_for_kinds_that_have_them(kernel):
    fits = {
        kind: create_model("deit_tiny_patch16_224", attention=kind, dtype="bfloat16")
        for kind in KINDS
    }
    offered = {kind: (m.shape.attention_can_be_fused, m.can_be_ragged) for kind, m in fits.items()}
    assert offered == {"dot": (True, True), "cosine": (True, True), "linear": (False, False)}
    plan = dataclasses.replace(fits["linear"].default_plan(2), **{kernel: True})
    with pytest.raises(UserError, match="there is none for attention 'linear': leave"):
        fits["linear"].program(DENSE, plan)
