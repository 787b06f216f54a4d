"""Cascades whose exits are A-ViTs or AdaViTs: what is handed over, what it costs, one dial."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import config as configs
from avit_jax import create_model
from avit_jax.checkpoints.operating_points import (
    OperatingPoint,
    at_operating_point,
    measured_with,
    save_points,
)
from avit_jax.config import model as config_model
from avit_jax.errors import UserError
from avit_jax.methods.dvt import Model
from avit_jax.methods.forward import Call, relations
from avit_jax.models import functional
from avit_jax.runtime.device_mesh import make_mesh

BATCH, SIZE = 6, 32
SIZES = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}


def cascade(name="dvt_avit_deit_micro", **method) -> Model:
    return create_model(name, method={"grids": (2, 4), **method}, **SIZES)


@pytest.fixture(scope="module")
def case():
    """Two exits in which some tokens halt early, some late, and some images' class tokens early.

    The fourth part gives the output with settings of the dial, and `thresholds` let half of the
    images leave.
    """
    model = cascade(inner={"gate_scale": 3.0, "gate_center": 0.5}, thresholds=(0.5,))
    params = model.init(jax.random.key(0))
    images = 2 * jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))

    @jax.jit
    def apply(threshold_shift, gate_center):
        settings = {"threshold_shift": threshold_shift, "inner.gate_center": gate_center}
        return model.apply(params, images, settings=settings)

    confidence = jax.nn.softmax(apply(0.0, 0.5).exits[0]).max(-1)
    shift = float(jnp.median(confidence)) - 0.5
    return model.changed({"threshold_shift": shift}), params, images, apply


@pytest.fixture(scope="module")
def first(case):
    """What the first exit says and shows."""
    model, params, images, _ = case
    call = Call(features=True, shown=model.shown)

    @jax.jit
    def said(params, images):
        return model.exits[0].forward(functional.bind(model.build, params).exit(0), images, call)

    return jax.tree.map(np.asarray, said(params, images))


def test_a_halted_token_hands_over_its_last_state(first):
    ran = first.usage[0].tokens
    assert 0.2 < ran[1:].mean() < 0.8 and not ran[-1].all()
    last = ran.sum(0)[None, :, :, None] - 1
    by_hand = np.take_along_axis(first.aux["features"], last, axis=0)[0]
    np.testing.assert_array_equal(first.aux["states"], by_hand)


def test_relations_are_those_of_layers_in_which_both_tokens_ran(first):
    ran, shown = first.usage[0].tokens, first.aux["relations"]
    both = ran[:, :, None, :, None] & ran[:, :, None, None, :]
    both = np.broadcast_to(both, shown.shape)
    assert np.all(shown[~both] == 0) and np.all(shown[both] != 0)
    heads = relations(jnp.ones((1, 2, 2, 2)), jnp.array([[True, False]]), "float32",
                      heads=jnp.array([[False, True]]))  # fmt: skip
    np.testing.assert_array_equal(heads[0], [[[0, 0], [0, 0]], [[1, 0], [0, 0]]])


def test_an_image_whose_class_token_has_halted_shows_what_it_ran_until_then(first):
    """Nothing that compact execution could not know is handed over."""
    ran, mask = first.usage[0].tokens, first.aux["mask"][:-1]
    finished = ~mask[:, :, 0]
    assert (finished[:, :, None] & mask).any(), "no patch outlives a class token"
    assert not ran[finished].any()


def test_a_cascade_whose_tokens_never_halt_is_the_plain_one(case):
    model, params, images, apply = case
    plain = jax.jit(cascade("dvt_deit_micro").apply)(params, images)
    output = apply(2.0, 1e4)
    np.testing.assert_allclose(output.exits, plain.exits, atol=1e-5)
    np.testing.assert_allclose(model.gmacs(output), model.dense_gmacs(), rtol=1e-6)


def test_one_dial_moves_tokens_and_images_and_costs_follow(case):
    model, *_, apply = case
    dial = model.dial()
    positions = (dial.low, -3.0, 0.0, 3.0, dial.high)
    outputs = [apply(*dial.settings(position).values()) for position in positions]
    costs = [float(model.gmacs(output).mean()) for output in outputs]
    assert costs == sorted(set(costs))
    stays = [output.usage[1].tokens.any((0, 2)).mean() for output in outputs]
    halts = [output.usage[0].tokens.mean() for output in outputs]
    assert stays[0] == 0 and stays[2] == 0.5 and stays[-1] == 1
    assert halts[0] < halts[2] < halts[-1] == 1


@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_images_leave_on_every_device_by_themselves(case, devices):
    model, params, images, apply = case
    mesh = make_mesh(devices=jax.devices()[:devices])
    plan = dataclasses.replace(model.default_plan(4), row_sizes=(17,))
    predict = model.compile(params, batch_size=8, execution="compact", mesh=mesh, plan=plan)
    found, expected = predict(np.asarray(images)), apply(*model.dial().settings(0.0).values())
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    chex.assert_trees_all_equal(found.usage, expected.usage)


def test_the_last_answer_trains_the_first_exit_through_what_it_hands_over(case):
    model, params, images, _ = case

    @jax.jit
    @jax.grad
    def gradients(first):
        output = model.apply(params | {"exit1": first}, images, train=True)
        return output.exits[-1].std()

    found = gradients(params["exit1"])
    chex.assert_tree_all_finite(found)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(found["blocks"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found["head"]))


def test_a_policy_that_may_leave_out_everything_is_refused():
    """Whether an image reached an exit is seen by what ran there."""
    with pytest.raises(UserError, match="keep_layers"):
        cascade("dvt_adavit_deit_micro", inner={"keep_layers": 0})
    cascade("dvt_adavit_deit_micro", inner={"keep_layers": 0, "layers": False})


@pytest.mark.parametrize("name", ["avit", "adavit"])
def test_settings_of_the_exits_method_are_in_the_config(name):
    config = configs.base(model=f"dvt_{name}_deit_micro")
    setting = "gate_center" if name == "avit" else "logit_shift"
    config.method.inner[setting] = 7.5
    model = config_model.make_model(config)
    assert all(getattr(one.settings, setting) == 7.5 for one in model.exits)
    assert model.changed({f"inner.{setting}": 1.0}).exits[0].settings == dataclasses.replace(
        model.inner.settings, **{setting: 1.0}
    )
    with pytest.raises(TypeError):
        config.method.inner[setting] = "high"
    with pytest.raises(UserError, match="unknown settings gates: valid ones are"):
        cascade(inner={"gates": 1.0})
    assert not configs.base(model="dvt_deit_micro").method.inner.keys()


def test_a_stored_budget_sets_thresholds_and_tokens(tmp_path):
    config = configs.base(model="dvt_avit_deit_micro")
    cost = {"target_gmacs": 0.01, "gmacs_calibration": 0.01, "gmacs": 0.01, "gmacs_dense": 0.04}
    point = OperatingPoint(
        name="0.3",
        settings={"thresholds": (0.8, 0.7), "inner.gate_center": 12.5},
        top1=0.9,
        mean_depth=3.0,
        **cost,
    )
    save_points(tmp_path, measured_with(config, tmp_path), [point])
    model = config_model.make_model(at_operating_point(config, tmp_path, "0.3"))
    assert model.settings.thresholds == (0.8, 0.7)
    assert all(one.settings.gate_center == 12.5 for one in model.exits)
