"""The backbone around the blocks: patches, positions, heads, and sizes that cannot be."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from avit_jax.models import functional
from avit_jax.models.vit import ViT, ViTShape

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
}


def network(**changes) -> ViT:
    """A backbone whose parameters, biases too, are all different."""

    def build(rngs: nnx.Rngs) -> ViT:
        return ViT(ViTShape(**SIZES | changes), rngs=rngs)

    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(generator.normal(0.1, 0.3, leaf.shape), leaf.dtype)

    return functional.bind(build, jax.tree.map(draw, functional.abstract(build)))


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)


def test_the_patch_embedding_is_a_convolution_whose_stride_is_its_kernel(images):
    vit = network()
    kernel = vit.patch_embed.kernel[...].reshape(8, 8, 3, 24)  # height, width, in, out
    convolved = jax.lax.conv_general_dilated(
        images, kernel, (8, 8), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    patches = vit.embed(images)[:, 1:] - vit.pos_embed[...][:, 1:]
    expected = convolved.reshape(2, 16, 24) + vit.patch_embed.bias[...]
    np.testing.assert_allclose(patches, expected, atol=1e-5)


def test_fresh_weights_keep_variances_and_positions_are_of_the_size_of_patches():
    def build(rngs: nnx.Rngs) -> ViT:
        return ViT(ViTShape(**SIZES | {"distilled": True}), rngs=rngs)

    fresh = functional.create(build, jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(fresh):
        kind = path[-1].key
        if kind == "kernel":  # a layer axis in front counts for nothing
            assert np.std(leaf) * np.sqrt(leaf.shape[-2]) == pytest.approx(1, rel=0.2), path
        elif kind in ("bias", "scale"):
            np.testing.assert_array_equal(leaf, float(kind == "scale"))
        else:
            assert 0.2 < np.std(leaf) < 1, path


@pytest.mark.parametrize("distilled", [False, True])
def test_prefix_tokens_stand_in_front_and_every_token_gets_its_position(images, distilled):
    vit = network(distilled=distilled)
    tokens = vit.embed(images)
    prefix = 1 + distilled
    chex.assert_shape(tokens, (2, prefix + 16, 24))
    own = [vit.cls_token[...][0, 0]] + ([vit.dist_token[...][0, 0]] if distilled else [])
    for place, token in enumerate(own):
        expected = np.tile(token + vit.pos_embed[...][0, place], (2, 1))
        np.testing.assert_allclose(tokens[:, place], expected, rtol=1e-6)


def test_a_patch_changes_its_own_token_only(images):
    vit = network()
    changed = images.at[:, 8:16, 24:32].add(1.0)  # second row, last column
    moved = (vit.embed(changed) != vit.embed(images)).any((0, 2))
    np.testing.assert_array_equal(np.flatnonzero(moved), [1 + 4 + 3])


@pytest.mark.parametrize("distilled", [False, True])
def test_every_head_reads_its_own_token(distilled):
    vit = network(distilled=distilled)
    tokens = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 24)), jnp.float32)
    heads = vit.readout(tokens)
    chex.assert_shape(heads, (1 + distilled, 2, 5))
    assert heads.dtype == jnp.float32
    np.testing.assert_allclose(heads[0], vit.head(vit.norm(tokens[:, 0])), rtol=1e-5)
    if distilled:
        np.testing.assert_allclose(heads[1], vit.head_dist(vit.norm(tokens[:, 1])), rtol=1e-5)


def test_logits_are_float32_in_bfloat16_arithmetic(images):
    vit = network(dtype="bfloat16")
    tokens = vit.embed(images)
    assert tokens.dtype == jnp.bfloat16
    assert vit.readout(tokens).dtype == jnp.float32


def test_stochastic_depth_rises_linearly_from_0():
    np.testing.assert_allclose(
        ViTShape(depth=5, drop_path_rate=0.2).drop_path_rates(), [0, 0.05, 0.1, 0.15, 0.2]
    )
    np.testing.assert_array_equal(ViTShape(depth=1, drop_path_rate=0.2).drop_path_rates(), [0])


@pytest.mark.parametrize(
    ("distilled", "tokens"), [(False, 197), (True, 198)], ids=["plain", "distilled"]
)
def test_deit_has_as_many_tokens_as_published(distilled, tokens):
    shape = ViTShape(distilled=distilled)
    assert (shape.grid, shape.num_tokens) == (14, tokens)


@pytest.mark.parametrize(
    "shape", [(2, 16, 16, 3), (32, 32, 3), (2, 32, 32, 1), (2, 3, 32, 32), (2, 32, 24, 3)]
)
def test_images_of_another_shape_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"this model takes \[B, 32, 32, 3\]") as refusal:
        network().embed(jnp.zeros(shape))
    assert str(shape) in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 8: use 24 or"),
        ({"embed_dim": 25}, "embed_dim 25 is not a multiple of num_heads 2"),
        ({"dtype": "float16"}, "dtype is 'float16': write one of float32"),
        ({"depth": 0}, "depth is 0: write at least 1"),
        ({"num_classes": 0}, "num_classes is 0: write at least 1"),
        ({"patch_size": 0}, "patch_size is 0: write at least 1"),
        ({"num_heads": 0}, "num_heads is 0: write at least 1"),
        ({"image_size": 0}, "image_size is 0: write at least 1"),
        ({"embed_dim": -24}, "embed_dim is -24: write at least 1"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate is 1.0: write a share, at least 0 and below 1"),
        ({"dropout_rate": -0.1}, r"dropout_rate is -0.1: write a share, at least 0 and below 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        ViTShape(**SIZES | changes)
