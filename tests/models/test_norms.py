"""Norms by name, against the same computations written out in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import avit_jax
from avit_jax.errors import UserError
from avit_jax.models import costs, norms
from avit_jax.models.norms import NORMS, is_over_tokens, normalised, of_images, statistics
from avit_jax.models.reuse_shape import Reuse
from avit_jax.types import Gates
from tests.models.by_hand import BATCH, DIM, TOKENS, block_of, both, random

LIVE = np.array([[True, False, True, True, False], [True, True, True, True, True]])
EPS = 1e-3  # large enough to show


def norm_of(name, dtype="float32"):
    norm = NORMS[name](DIM, eps=EPS, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    for number, (_, leaf) in enumerate(sorted(nnx.to_flat_state(nnx.state(norm)))):
        leaf[...] = random(DIM, seed=number)
    return norm


def rms_by_hand(norm, x):
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS) * np.asarray(norm.scale[...])


def instances_by_hand(norm, x, live):
    """Image by image; tokens that do not count are 0."""
    out = np.zeros(x.shape)
    for image, (tokens, there) in enumerate(zip(np.asarray(x, np.float64), live, strict=True)):
        kept = tokens[there]
        away = (kept - kept.mean(0)) / np.sqrt(kept.var(0) + EPS)
        out[image, there] = away * np.asarray(norm.scale[...]) + np.asarray(norm.bias[...])
    return out


def test_rms_norm_is_that_of_single_tokens_and_has_no_bias():
    norm, x = norm_of("rmsnorm"), 3 * random(BATCH, TOKENS, DIM) + 1
    assert set(nnx.to_pure_dict(nnx.state(norm))) == {"scale"}
    assert statistics(norm, x, LIVE) is None and not is_over_tokens("rmsnorm")
    np.testing.assert_allclose(of_images(norm, x, LIVE), rms_by_hand(norm, x), atol=1e-5)


def test_instance_norm_counts_the_live_tokens_of_each_image():
    norm, x = norm_of("instancenorm"), 3 * random(BATCH, TOKENS, DIM) + 1
    everything = np.ones_like(LIVE)
    for live, given in ((LIVE, LIVE), (everything, None), (LIVE, LIVE * 0.5)):
        found = np.where(live[:, :, None], of_images(norm, x, given), 0)
        np.testing.assert_allclose(found, instances_by_hand(norm, x, live), atol=1e-5)


def test_rows_of_any_images_are_normalised_by_what_is_known_of_these():
    norm, x = norm_of("instancenorm"), random(BATCH, TOKENS, DIM)
    image = np.array([1, 0, 1])
    known = statistics(norm, x, LIVE).of_rows(image)
    expected = instances_by_hand(norm, x, LIVE)[image, [2, 3, 4]]
    np.testing.assert_allclose(normalised(norm, x[image, [2, 3, 4]], known), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["rmsnorm", "instancenorm"])
def test_statistics_are_float32_and_what_is_normalised_has_the_dtype(name):
    norm, x = norm_of(name, "bfloat16"), 300 + random(BATCH, TOKENS, DIM)
    found, expected = of_images(norm, x.astype(jnp.bfloat16)), norm_of(name)
    assert found.dtype == jnp.bfloat16
    expected = of_images(expected, x.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(np.float32(found), expected, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("name", NORMS)
def test_what_is_not_live_has_no_influence_and_no_image_is_too_empty(name):
    block = block_of(norm=name)
    live = jnp.asarray(LIVE).at[1].set(False)
    gates = Gates(tokens=live)
    clean = jnp.where(live[:, :, None], random(BATCH, TOKENS, DIM), 0)

    def answer(block, x):
        return jnp.where(live[:, :, None], both(block, x, gates=gates), 0)

    for rest in (jnp.nan, jnp.inf, 1e30):
        broken = jnp.where(live[:, :, None], clean, rest)
        np.testing.assert_array_equal(answer(block, broken), answer(block, clean))
    assert np.isfinite(both(block, clean, gates=gates)).all()
    gradients = jax.grad(lambda x: (answer(block, x) ** 2).sum())(clean)
    assert np.isfinite(gradients).all() and np.any(gradients[0])
    assert not np.any(np.asarray(gradients)[~np.asarray(live)])


def test_a_token_alone_has_gradients_that_are_finite():
    norm = norm_of("instancenorm")
    alone = np.zeros_like(LIVE)
    alone[:, 0] = True
    gradient = jax.grad(lambda x: (of_images(norm, x, alone)[:, 0] ** 2).sum())
    assert np.isfinite(gradient(random(BATCH, TOKENS, DIM))).all()


def test_norms_of_a_model_have_the_names_and_epsilon_of_its_shape():
    small = {"embed_dim": 24, "depth": 2, "image_size": 32, "patch_size": 8}

    def model(name="deit_tiny_patch16_224", **changes):
        return avit_jax.create_model(name, **small | changes)

    usual, rms, instance = (model(norm=name) for name in NORMS)
    assert usual == model()
    names = [set(one.abstract_params()["blocks"]["norm1"]) for one in (usual, rms, instance)]
    assert names == [{"scale", "bias"}, {"scale"}, {"scale", "bias"}]
    assert set(rms.abstract_params()["norm"]) == {"scale"}
    network = nnx.eval_shape(lambda: instance.build(nnx.Rngs(0)))
    assert isinstance(network.norm, nnx.LayerNorm)
    written = rms.to_torch(rms.init(jax.random.key(0)))
    assert "blocks.1.norm2.weight" in written and "blocks.1.norm2.bias" not in written
    assert model(norm_eps=0.5).shape.block.norm_eps == 0.5
    t2t = avit_jax.create_model("t2t_vit_7")
    assert (t2t.shape.norm_eps, usual.shape.norm_eps) == (1e-5, 1e-6)


def test_norms_that_cannot_be_are_refused():
    shape = avit_jax.create_model("deit_tiny_patch16_224").shape
    with pytest.raises(UserError, match="norm is 'batchnorm': write one of layernorm, rmsnorm"):
        dataclasses.replace(shape, norm="batchnorm")
    with pytest.raises(UserError, match="norm_eps is 0: write a number above 0"):
        dataclasses.replace(shape, norm_eps=0)
    reuse = Reuse(grid=7, context_dim=0, context_hidden=0, relations=True)
    with pytest.raises(UserError, match=r"norm is 'instancenorm'.* relation_reuse = False"):
        dataclasses.replace(shape, norm="instancenorm", reuse=reuse)
    assert dataclasses.replace(shape, norm="rmsnorm", reuse=reuse).norm == "rmsnorm"


def test_the_last_block_under_a_norm_over_tokens_costs_its_attention_half():
    shape = avit_jax.create_model("deit_tiny_patch16_224").shape
    other = dataclasses.replace(shape, norm="instancenorm")
    expected = costs.attention(shape, 100) + costs.mlp(shape, 1)
    assert costs.last_block(shape, 100) < costs.last_block(other, 100) == expected
    assert costs.dense_inference_gmacs(other) < costs.dense_gmacs(other)
    assert costs.dense_inference_gmacs(other) < costs.aligned_inference_gmacs(other)


def test_a_further_norm_is_one_function_and_its_name(monkeypatch):
    class Halved(nnx.Module):
        def __call__(self, x):
            return x / 2

    monkeypatch.setitem(norms.NORMS, "halved", lambda features, **_: Halved())
    block, x = block_of(norm="halved"), random(BATCH, TOKENS, DIM)
    np.testing.assert_array_equal(block.attend(x), block.attend(x, normed=x / 2))
