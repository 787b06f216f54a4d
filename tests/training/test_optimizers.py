"""Schedule, optimisers, no-decay rule, clipping and frozen parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avit_jax import create_model
from avit_jax.config.optim import Optim
from avit_jax.errors import UserError
from avit_jax.training import optimizers

DEFAULTS = Optim(learning_rate=1e-3, reference_batch_size=64, warmup=0.1)
# DeiT's, for 512 images a step: (arXiv 2012.12877, and the defaults of its main.py).
DEIT = Optim(
    warmup_epochs=5.0,
    warmup_start=1e-6,
    min_rate=1e-5,
    cooldown_epochs=10.0,
    cosine_under_warmup=True,
)


def settings(**changes) -> Optim:
    return dataclasses.replace(DEFAULTS, **changes)


def parameters() -> dict:
    return {
        "head": {"kernel": jnp.full((2, 3), 0.5), "bias": jnp.full(3, 0.5)},
        "norm": {"scale": jnp.full(2, 0.5), "bias": jnp.full(2, 0.5)},
        "pos_embed": jnp.full((1, 4, 2), 0.5),
    }


def everything(flag: bool, params: dict) -> dict:
    return jax.tree.map(lambda _: flag, params)


def one_update(config: Optim, params: dict, grads: dict, trainable: dict) -> dict:
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


def cosine_of_timm(epoch: int, *, peak: float, epochs: int) -> float:
    """The rate of an epoch by timm's CosineLRScheduler with one cycle, as DeiT's main.py makes it.

    Its warm-up rises from `warmup_lr` by the same amount every epoch; its cosine counts from epoch
    0 all the same (`warmup_prefix` is off), and behind it the rate is `min_lr`.
    """
    warmup_lr, min_lr, warmup = 1e-6, 1e-5, 5
    if epoch < warmup:
        return warmup_lr + epoch * (peak - warmup_lr) / warmup
    if epoch >= epochs:
        return min_lr
    return min_lr + 0.5 * (peak - min_lr) * (1 + np.cos(np.pi * epoch / epochs))


@pytest.mark.parametrize("batch_size", [512, 1024])
def test_the_rate_at_the_beginning_of_every_epoch_is_that_of_deits_schedule(batch_size):
    steps_per_epoch = 7
    schedule = optimizers.learning_rate(
        DEIT, batch_size=batch_size, total_steps=310 * steps_per_epoch, epochs=310.0
    )
    found = jax.vmap(schedule)(steps_per_epoch * jnp.arange(310))
    peak = 5e-4 * batch_size / 512
    wanted = [cosine_of_timm(epoch, peak=peak, epochs=300) for epoch in range(310)]
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    assert wanted[0] == 1e-6 and wanted[299] > 1e-5 and set(wanted[300:]) == {1e-5}


def test_a_warm_up_in_front_of_the_cosine_reaches_the_peak():
    behind = dataclasses.replace(DEIT, cosine_under_warmup=False)
    rates = [
        float(optimizers.learning_rate(s, batch_size=512, total_steps=310, epochs=310.0)(5))
        for s in (DEIT, behind)
    ]
    assert rates[0] < 4.9999e-4
    assert rates[1] == pytest.approx(5e-4, rel=1e-6)


def test_where_steps_say_the_length_epochs_are_as_large_a_share_of_it():
    long, short = (
        optimizers.learning_rate(DEIT, batch_size=512, total_steps=steps, epochs=310.0)
        for steps in (3100, 310)
    )
    steps = np.array([0, 2, 5, 40, 299, 300, 309])
    np.testing.assert_allclose(jax.vmap(long)(10 * steps), jax.vmap(short)(steps), rtol=1e-5)


def test_a_lowest_rate_above_the_peak_is_refused():
    with pytest.raises(UserError, match=r"min_rate is 1e-05, above the peak of 7.8\d*e-06 .* of 8"):
        optimizers.learning_rate(DEIT, batch_size=8, total_steps=310, epochs=310.0)


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


def drawn(shapes: dict, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adamw", lambda **o: optax.adamw(b1=0.8, b2=0.9, eps=1e-6, **o)),
        ("lamb", lambda **o: optax.lamb(b1=0.8, b2=0.9, eps=1e-6, **o)),
        ("lion", lambda **o: optax.lion(b1=0.8, b2=0.9, **o)),
    ],
)
def test_steps_are_those_of_optax_with_every_layer_by_itself(name, theirs):
    """Blocks are stacked here; optax gets each layer's parameters as arrays of their own."""
    of_block = {"fc1": {"kernel": jnp.zeros((3, 4, 2)), "bias": jnp.zeros((3, 2))}}
    shapes = {"blocks": of_block, "head": {"kernel": jnp.zeros((4, 5)), "bias": jnp.zeros(5)}}
    marks = {"blocks": everything(True, of_block), "head": everything(False, shapes["head"])}
    config = settings(name=name, b1=0.8, b2=0.9, eps=1e-6, weight_decay=0.3)
    rates = jnp.array([0.1, 0.03])
    ours = optimizers.build(
        config,
        lambda step: rates[step],
        trainable=everything(True, shapes),
        stacked=marks,
    )

    def apart(tree: dict) -> dict:
        layers = [jax.tree.map(lambda leaf, i=i: leaf[i], tree["blocks"]) for i in range(3)]
        return tree | {"blocks": layers}

    whole = drawn(shapes, 0)
    whole["head"]["bias"] = np.zeros_like(whole["head"]["bias"])  # has no length to go by
    layers = apart(whole)
    reference = theirs(
        learning_rate=lambda count: rates[count],
        weight_decay=0.3,
        mask=lambda p: jax.tree_util.tree_map_with_path(lambda k, _: k[-1].key == "kernel", p),
    )
    state, their_state = ours.init(whole), reference.init(layers)
    for step in range(2):
        grads = drawn(shapes, 1 + step)
        updates, state = ours.update(grads, state, whole, step=jnp.int32(step))
        whole = optax.apply_updates(whole, updates)
        updates, their_state = reference.update(apart(grads), their_state, layers)
        layers = optax.apply_updates(layers, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), apart(whole), layers
    )


@pytest.mark.parametrize("name", ["lamb", "lion"])
def test_every_optimiser_leaves_frozen_parameters_alone(name):
    params = {"kept": {"kernel": jnp.ones((1, 2))}, "frozen": {"kernel": jnp.ones((1, 2))}}
    trainable = {"kept": {"kernel": True}, "frozen": {"kernel": False}}
    updates = one_update(settings(name=name), params, params, trainable)
    assert np.all(updates["kept"]["kernel"] < 0)
    np.testing.assert_array_equal(updates["frozen"]["kernel"], 0.0)
