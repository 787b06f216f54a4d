"""Schedule, no-decay rule, clipping and frozen parameters of the optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from avit_jax import create_model
from avit_jax.training import optimizers

DEFAULTS = {
    "learning_rate": 1e-3,
    "reference_batch_size": 64,
    "warmup": 0.1,
    "min_learning_rate": 0.01,
    "weight_decay": 0.05,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "clip_norm": 0.0,
}


def settings(**changes) -> ConfigDict:
    return ConfigDict(DEFAULTS | changes)


def parameters() -> dict:
    return {
        "head": {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.full(3, 0.5)},
        "norm": {"scale": jnp.full(2, 0.5), "bias": jnp.full(2, 0.5)},
        "pos_embed": jnp.full((1, 4, 2), 0.5),
    }


def everything(flag: bool, params: dict) -> dict:
    return jax.tree.map(lambda _: flag, params)


def one_update(config: ConfigDict, params: dict, grads: dict, trainable: dict) -> dict:
    optimizer = optimizers.build(config, optax.constant_schedule(1.0), trainable=trainable)
    updates, _ = optimizer.update(grads, optimizer.init(params), params, step=0)
    return updates


def test_the_rate_rises_linearly_to_its_peak_and_falls_as_a_cosine_to_its_share():
    schedule = optimizers.learning_rate(settings(), batch_size=64, total_steps=100)
    steps = np.arange(101)
    rise = 1e-3 * steps / 10
    fall = 1e-5 + (1e-3 - 1e-5) * (1 + np.cos(np.pi * (steps - 10) / 90)) / 2
    expected = np.where(steps < 10, rise, fall)
    found = [float(schedule(step)) for step in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-10)


def test_the_peak_is_proportional_to_the_batch_size():
    peaks = [
        float(optimizers.learning_rate(settings(), batch_size=size, total_steps=100)(10))
        for size in (64, 256)
    ]
    np.testing.assert_allclose(peaks, [1e-3, 4e-3], rtol=1e-6)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.99])
def test_every_length_and_warmup_that_a_config_may_ask_for_gives_finite_rates(total_steps, warmup):
    schedule = optimizers.learning_rate(
        settings(warmup=warmup), batch_size=64, total_steps=total_steps
    )
    rates = np.array([float(schedule(step)) for step in range(total_steps + 1)])
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert rates.max() <= 1e-3 * (1 + 1e-6)


@pytest.mark.parametrize("name", ["avit_micro_patch4_32", "deit_micro_distilled_patch4_32"])
def test_of_a_model_only_the_weight_matrices_decay(name):
    params = create_model(name).abstract_params()
    decays = {
        jax.tree_util.keystr(path, simple=True, separator="."): flag
        for path, flag in jax.tree_util.tree_leaves_with_path(optimizers.decayed(params))
    }
    matrices = {
        "patch_embed.kernel",
        "head.kernel",
        "blocks.attention.qkv.kernel",
        "blocks.attention.proj.kernel",
        "blocks.mlp.fc1.kernel",
        "blocks.mlp.fc2.kernel",
    } | ({"head_dist.kernel"} if "distilled" in name else set())
    assert {path for path, flag in decays.items() if flag} == matrices


def test_decay_is_decoupled_and_reaches_kernels_only():
    params = parameters()
    updates = one_update(
        settings(), params, jax.tree.map(jnp.zeros_like, params), everything(True, params)
    )
    np.testing.assert_allclose(updates["head"]["kernel"], -0.05 * 0.5, rtol=1e-6)
    for leaf in jax.tree.leaves([updates["head"]["bias"], updates["norm"], updates["pos_embed"]]):
        np.testing.assert_array_equal(leaf, 0.0)


def test_two_steps_equal_adamw_written_out():
    config = settings(weight_decay=0.1, b1=0.8, b2=0.9)
    params = {"kernel": jnp.array([[0.3, -2.0]])}
    grads = [np.array([[0.5, 0.1]]), np.array([[-0.2, 0.4]])]
    optimizer = optimizers.build(config, optax.constant_schedule(0.01), trainable={"kernel": True})
    state = optimizer.init(params)
    value, mean, square = np.array([[0.3, -2.0]]), 0.0, 0.0
    for number, grad in enumerate(grads, start=1):
        updates, state = optimizer.update({"kernel": jnp.asarray(grad)}, state, params, step=number)
        params = optax.apply_updates(params, updates)
        mean, square = 0.8 * mean + 0.2 * grad, 0.9 * square + 0.1 * grad**2
        direction = mean / (1 - 0.8**number) / (np.sqrt(square / (1 - 0.9**number)) + 1e-8)
        value = value - 0.01 * (direction + 0.1 * value)
    np.testing.assert_allclose(params["kernel"], value, rtol=1e-5)


def test_the_rate_is_that_of_the_step_however_many_updates_there_were():
    optimizer = optimizers.build(
        settings(weight_decay=0.0),
        lambda step: jnp.asarray([0.1, 0.2, 0.4, 0.8])[step],
        trainable={"kernel": True},
    )
    params, grads = {"kernel": jnp.zeros((1, 1))}, {"kernel": jnp.ones((1, 1))}
    state = optimizer.init(params)
    for step, rate in ((0, 0.1), (1, 0.2), (3, 0.8)):  # step 2 is left out by a rollback
        updates, state = optimizer.update(grads, state, params, step=jnp.int32(step))
        np.testing.assert_allclose(updates["kernel"], -rate, rtol=1e-3)


def test_clipping_scales_all_gradients_by_their_common_norm():
    # Adam's first update is the sign of the gradient whatever its size: eps makes the size visible.
    config = settings(clip_norm=1.0, eps=1.0, weight_decay=0.0)
    params = {"a": {"kernel": jnp.zeros((1, 1))}, "b": {"kernel": jnp.zeros((1, 1))}}
    grads = {"a": {"kernel": jnp.full((1, 1), 3.0)}, "b": {"kernel": jnp.full((1, 1), 4.0)}}
    updates = one_update(config, params, grads, everything(True, params))
    for name, clipped in (("a", 0.6), ("b", 0.8)):
        np.testing.assert_allclose(
            updates[name]["kernel"], -clipped / (clipped + 1.0), rtol=1e-5, err_msg=name
        )


def test_gradients_within_the_norm_are_left_alone():
    params = parameters()
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), params)
    found = [
        one_update(settings(clip_norm=clip, eps=1.0), params, grads, everything(True, params))
        for clip in (0.0, 1.0)
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_frozen_parameters_neither_move_nor_decay_and_do_not_count_for_clipping():
    config = settings(clip_norm=1.0, eps=1.0, weight_decay=0.5)
    params = {"kept": {"kernel": jnp.ones((1, 1))}, "frozen": {"kernel": jnp.ones((1, 1))}}
    grads = {
        "kept": {"kernel": jnp.full((1, 1), 0.5)},
        "frozen": {"kernel": jnp.full((1, 1), 99.0)},
    }
    trainable = {"kept": {"kernel": True}, "frozen": {"kernel": False}}
    updates = one_update(config, params, grads, trainable)
    np.testing.assert_array_equal(updates["frozen"]["kernel"], 0.0)
    np.testing.assert_allclose(updates["kept"]["kernel"], -(0.5 / 1.5 + 0.5), rtol=1e-5)


def test_frozen_parameters_need_no_memory_in_the_optimiser():
    params = {"kept": {"kernel": jnp.ones((2, 2))}, "frozen": {"kernel": jnp.ones((5, 7))}}
    trainable = {"kept": {"kernel": True}, "frozen": {"kernel": False}}
    optimizer = optimizers.build(settings(), optax.constant_schedule(1.0), trainable=trainable)
    shapes = {leaf.shape for leaf in jax.tree.leaves(optimizer.init(params))}
    assert (2, 2) in shapes
    assert (5, 7) not in shapes
