"""Weights of a trained cascade on images of another size, where exits have other windows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax.checkpoints.weights import weights_of_run
from avit_jax.config.model import make_model
from avit_jax.errors import UserError
from avit_jax.methods import dvt
from avit_jax.methods.dvt import windows
from avit_jax.models.grid_resize import resize_kernel
from avit_jax.models.positions import sinusoids
from avit_jax.runtime.device_mesh import make_mesh
from tests import tiny_runs
from tests.methods.dvt.test_plain_weights import cascade, network


def on_images_of(model, size, grids):
    """The same cascade for images of `size` pixels on other grids."""
    shape = dataclasses.replace(model.shape, image_size=size)
    settings = dataclasses.replace(model.settings, grids=grids)
    return dvt.Model(shape, settings, model.inner)


def random_params(model):
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), model.abstract_params()
    )


def test_kernels_are_resized_positions_interpolated_and_all_else_stays():
    model = cascade(network("vit"))
    other = on_images_of(model, 40, (2, 3, 5))
    params = random_params(model)
    found = other.from_torch(model.to_torch(params))
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, other.abstract_params())
    sides = [(16, 20), (11, 14), (8, 8)]
    for name, (former, side) in zip(found, sides, strict=True):
        kernel = np.asarray(params[name]["patch_embed"]["kernel"]).reshape(former, former, 3, 24)
        expected = resize_kernel(kernel, side).reshape(-1, 24)
        np.testing.assert_allclose(found[name]["patch_embed"]["kernel"], expected, atol=1e-6)
        for part in set(found[name]) - {"patch_embed", "pos_embed"}:
            jax.tree.map(np.testing.assert_array_equal, found[name][part], params[name][part])
    np.testing.assert_array_equal(found["exit1"]["pos_embed"], params["exit1"]["pos_embed"])
    assert found["exit3"]["pos_embed"].shape == (1, 1 + 25, 24)


def test_first_soft_splits_are_resized_and_fixed_positions_are_those_of_the_grid():
    model = cascade(network("t2t"))
    other = on_images_of(model, 96, (2, 4, 6))
    params = random_params(model)
    for exit_params, one in zip(params.values(), model.stages, strict=True):
        exit_params["pos_embed"] = np.asarray(one.position_encoding.table(24, None))
    before, after = (one.stages[0].splits[0].size for one in (model, other))
    assert before != after
    found = other.from_torch(model.to_torch(params))
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, other.abstract_params())
    np.testing.assert_array_equal(found["exit2"]["pos_embed"], sinusoids(1 + 16, 24))


def test_classifiers_of_as_many_classes_as_a_window_has_pixels_are_left_alone():
    exit1 = cascade(network("vit")).exits[0]
    given = {"head.bias": np.zeros(27, np.float32), "norm.weight": np.zeros(3, np.float32)}
    found = windows.fitted(given, exit1)
    assert {name: array.shape for name, array in found.items()} == {
        "head.bias": (27,),
        "norm.weight": (3,),
    }


def test_a_trained_run_is_used_with_images_of_another_size(tmp_path):
    config = tiny_runs.config_of("dvt_deit_micro", depth=1)
    config.method.grids = (2, 3, 4)
    _, workdir, _, params = tiny_runs.trained(tmp_path, config)
    config.model.image_size = 48
    with pytest.raises(UserError, match=r"images of 48 .* 6 patches .* write grids \(3, 4, 6\)"):
        make_model(config)
    config.method.grids = (3, 5, 6)
    model = make_model(config)
    mesh = make_mesh(devices=jax.devices()[:1])
    found = weights_of_run(workdir, model, mesh).params
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, model.abstract_params())
    kernel = params["exit2"]["patch_embed"]["kernel"].reshape(11, 11, 3, 24)
    np.testing.assert_allclose(
        found["exit2"]["patch_embed"]["kernel"].reshape(10, 10, 3, 24),
        resize_kernel(kernel, 10),
        atol=1e-5,
    )
    config.method.grids = (2, 6)
    with pytest.raises(UserError, match="have other sizes than this model"):
        weights_of_run(workdir, make_model(config), mesh)
