"""Weights of the original JAX vision transformers give the original logits."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.errors import UserError
from avit_jax.pretrained import npz
from avit_jax.pretrained.weights import load_torch
from tests.pretrained.files import assert_same, google_research

SIZES = {
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "patch_size": 8,
    "mlp_ratio": 2.0,
    "num_classes": 5,
}


class MlpBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.gelu(nn.Dense(48)(x), approximate=False)
        return nn.Dense(24)(x)


class EncoderBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm(name="LayerNorm_0")(x)
        x = x + nn.MultiHeadDotProductAttention(3, name="MultiHeadDotProductAttention_1")(y)
        return x + MlpBlock(name="MlpBlock_3")(nn.LayerNorm(name="LayerNorm_2")(x))


class Positions(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + self.param("pos_embedding", nn.initializers.normal(1.0), (1, *x.shape[1:]))


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Positions(name="posembed_input")(x)
        for layer in range(2):
            x = EncoderBlock(name=f"encoderblock_{layer}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class Original(nn.Module):
    """The published architecture in the library it was published in."""

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(24, (8, 8), strides=(8, 8), padding="VALID", name="embedding")(images)
        x = x.reshape(len(x), -1, 24)
        token = self.param("cls", nn.initializers.normal(1.0), (1, 1, 24))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        return nn.Dense(5, name="head")(Encoder(name="Transformer")(x)[:, 0])


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (2, 32, 32, 3))


@pytest.fixture(scope="module")
def published(images):
    """Flat names and arrays, all of them random: fresh biases and scales would hide mistakes."""
    shapes = jax.eval_shape(Original().init, jax.random.key(0), images)["params"]
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    drawn = [0.3 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    return flax.traverse_util.flatten_dict(jax.tree.unflatten(tree, drawn), sep="/")


def model_of(**changes):
    return create_model("deit_micro_patch4_32", **SIZES | changes)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_bit_for_bit_under_their_own_names(tmp_path, published, save):
    save(tmp_path / "x.npz", **published)
    assert_same(load_torch(tmp_path / "x.npz"), published)


def test_the_logits_are_those_of_the_original(tmp_path, published, images):
    np.savez(tmp_path / "x.npz", **published)
    state_dict = load_torch(tmp_path / "x.npz")
    ours = jax.jit(model_of().apply)(model_of().from_torch(state_dict), images).logits
    params = flax.traverse_util.unflatten_dict(published, sep="/")
    theirs = jax.jit(Original().apply)({"params": params}, images)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_augregs_files_reach_the_vit_of_their_name(tmp_path):
    model, rng = create_model("vit_tiny_patch16_224"), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), model.abstract_params()
    )
    np.savez(tmp_path / "x.npz", **google_research(params, num_heads=3, patch_size=16))
    found = model.from_torch(load_torch(tmp_path / "x.npz"))
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_misfits_are_listed_and_the_rest_translated(published):
    broken = dict(published)
    del broken["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias"]
    broken["Transformer/extra"] = np.zeros(3)
    with pytest.raises(
        UserError, match=r"1 of \d+ names missing: blocks\.1\.attn\.qkv\.bias; 3"
    ) as refusal:
        model_of().from_torch(broken)
    assert "Transformer/encoderblock_1/Mul..." in str(refusal.value)
    assert "Transformer/extra" in str(refusal.value)


def test_another_number_of_heads_is_refused_though_all_shapes_fit(published):
    with pytest.raises(UserError, match=r"have 3 attention heads, the model has 2: create"):
        model_of(num_heads=2).from_torch(published)


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "x.npz", y=np.zeros(2), x=np.array([{}], object))
    with pytest.raises(UserError, match="holds pickled Python objects, which are not opened: save"):
        load_torch(tmp_path / "x.npz")


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(10**7, np.int8))
    with pytest.raises(UserError, match="unpacks to far more than weights can"):
        load_torch(tmp_path / "x.npz")


def test_a_cut_archive_is_refused(tmp_path, published):
    np.savez(tmp_path / "whole.npz", **published)
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in range(0, len(whole), 997):
        (tmp_path / "x.npz").write_bytes(whole[:length])
        with pytest.raises(UserError):
            load_torch(tmp_path / "x.npz")


def test_other_names_are_not_taken_for_these():
    assert not npz.is_google_research({"cls_token": np.zeros(1), "head.weight": np.zeros(1)})
