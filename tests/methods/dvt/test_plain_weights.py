"""A cascade starts from the weights of one network, of either backbone."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.methods import dvt, plain
from avit_jax.models.functional import map_paths

SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}


def network(backbone, **sizes):
    if backbone == "vit":
        return create_model("deit_tiny_patch16_224", image_size=32, patch_size=8, **SIZES, **sizes)
    return create_model(
        "t2t_vit_7", image_size=64, token_dim=8, token_dropout_rate=0.0, **SIZES, **sizes
    )


def flat(params):
    leaves = {}
    map_paths(lambda path, leaf: leaves.update({path: leaf}), params)
    return leaves


def cascade(one, **settings):
    return dvt.Model(one.shape, dvt.Settings(grids=(2, 3, 4), **settings), one)


@pytest.mark.parametrize("backbone", ["vit", pytest.param("t2t", marks=pytest.mark.slow)])
def test_every_exit_starts_from_the_weights_of_one_network(backbone, caplog):
    one = network(backbone)
    params = one.init(jax.random.key(0))
    model = cascade(one)
    with caplog.at_level(logging.WARNING):
        started = model.from_torch(one.to_torch(params))
    assert "train them" in caplog.text
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, model.abstract_params())
    for name, shape in zip(started, model.stages, strict=True):
        leaves = flat(started[name])
        same = {path for path, leaf in flat(params).items() if leaf.shape == leaves[path].shape}
        assert "blocks.attention.qkv.kernel" in same
        for path in same:
            np.testing.assert_array_equal(leaves[path], flat(params)[path])
        if shape.reuse is not None:
            assert not np.any(leaves["relation_reuse.conv2.kernel"])
            assert not np.any(leaves["blocks.mlp.fc1.kernel"][:, 24:])
    if backbone == "t2t":  # its table is not interpolated but that of the grid
        fresh = model.stages[0].position_encoding.table(24, None)
        np.testing.assert_array_equal(started["exit1"]["pos_embed"], fresh)


def test_the_first_exit_starts_as_the_plain_network_on_its_grid():
    one = network("vit")
    model = cascade(one)
    started = model.completed(one.init(jax.random.key(0)))
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    first = dataclasses.replace(one, shape=one.shape.with_grid(2))
    answers = jax.jit(model.apply)(started, images).exits[0]
    np.testing.assert_allclose(answers, first.apply(started["exit1"], images).logits, atol=1e-5)


def test_without_reuse_the_last_exit_is_the_plain_network():
    one = network("vit")
    params = one.init(jax.random.key(0))
    model = cascade(one, feature_reuse=False, relation_reuse=False)
    images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    answer = model.apply(model.completed(params), images)
    np.testing.assert_allclose(answer.logits, one.apply(params, images).logits, atol=1e-5)
    assert model.completed(model.init(jax.random.key(0))).keys() == {"exit1", "exit2", "exit3"}


def test_soft_splits_of_the_coarser_exits_may_be_given():
    one = network("t2t")
    settings = dvt.Settings(grids=(2, 4), first_splits=[[16, 8, 4]])
    assert dvt.Model(one.shape, settings, one).stages[0].splits[0] == (16, 8, 4)
    with pytest.raises(ValueError, match="makes 4 x 4 tokens and not 2 x 2"):
        dvt.Model(one.shape, dvt.Settings(grids=(2, 4), first_splits=((7, 4, 2),)), one)


def test_a_resized_kernel_answers_to_larger_windows_as_it_did():
    one = network("vit")
    params = one.init(jax.random.key(0))
    kernel = np.asarray(cascade(one).completed(params)["exit1"]["patch_embed"]["kernel"])
    window = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    larger = np.asarray(jax.image.resize(jnp.asarray(window), (16, 16, 3), "linear"))
    given = np.asarray(params["patch_embed"]["kernel"])
    np.testing.assert_allclose(larger.reshape(-1) @ kernel, window.reshape(-1) @ given, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grids": (4, 3)}, "numbers that rise"),
        ({"grids": (2, 5)}, "end with 5"),
        ({"grids": (2, 4), "thresholds": (0.5, 0.5)}, "thresholds are 2 for 2 exits"),
        ({"grids": (2, 4), "exit_weights": (1.0, -1.0)}, "write numbers from 0"),
        ({"grids": (2, 4), "context_dim": 0}, "context_dim is 0"),
        ({"grids": (2, 4), "first_splits": ((14, 8),)}, "size, stride and padding"),
        ({"grids": (2, 4), "first_splits": ((14, 8, 3),)}, "are for T2T-ViTs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, said):
    one = network("vit")
    with pytest.raises(ValueError, match=said):
        dvt.Model(one.shape, dvt.Settings(**settings), plain.Model(one.shape, plain.Settings()))
