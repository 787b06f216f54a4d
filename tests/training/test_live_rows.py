"""Steps on live rows: loss, gradients and logs of masked execution, or the state they got."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avit_jax import create_model
from avit_jax.data.mix import Mix
from avit_jax.errors import UserError
from avit_jax.losses.distillation import Distillation, Teacher
from avit_jax.methods.forward import RowCapacities
from avit_jax.runtime.device_mesh import make_mesh, replicated
from avit_jax.training import optimizers
from avit_jax.training import step as steps
from avit_jax.training.loss import loss_function
from avit_jax.zoo import plain_model
from tests.training.trainer import RECIPE, batch, rate

BATCH, TOKENS = 4, 17
SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "mlp_ratio": 1.0,
    "num_classes": 5,
}
METHOD = {
    "gate_scale": 3.0,
    "gate_center": 0.5,  # tokens of one image halt at various depths
    "kl_reading": "halting",
    "ponder_weight": 0.1,
    "prior_weight": 0.5,
    "target_depth": 2.0,
}
IMAGES = np.random.default_rng(1).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
ONE, TWO = (make_mesh(devices=jax.devices()[:count]) for count in (1, 2))
RULES = {
    "min_depth": 2,
    "max_depth": 3,
    "learn_gates": True,
    "class_tokens_halt": False,
    "spread": "cross",
    "spread_share": 0.5,
}
EVERYTHING = (BATCH * TOKENS,) * SIZES["depth"]


def create(name="avit_tiny_patch16_224", *, method=None, **overrides):
    return create_model(name, method=METHOD | (method or {}), **SIZES | overrides)


def draw(model, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(generator.normal(0, 0.3, leaf.shape), jnp.float32),
        model.abstract_params(),
    )


def losses(model, params, *, capacities, mesh=ONE, teacher=None):
    """Value, what was told beside it, and gradients on a batch."""
    targets = jax.nn.one_hot(jnp.arange(BATCH), 5)
    rows = capacities and RowCapacities(capacities=capacities, mesh=mesh)
    function = functools.partial(
        loss_function(model, teacher, rows), teacher_params=teacher and draw(teacher.model, 2)
    )
    gradient = jax.jit(jax.value_and_grad(function, has_aux=True))
    (value, told), gradients = gradient(params, IMAGES, targets, jax.random.key(3), 0.5)
    return value, told, gradients


def assert_same(ours, theirs, *, relative=1e-5):
    (value, (logged, _), gradients), (wanted, (logs, _), slopes) = ours, theirs
    assert float(value) == pytest.approx(float(wanted), rel=1e-6)
    chex.assert_trees_all_close(logged, logs, rtol=1e-5, atol=1e-6)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes))
    chex.assert_trees_all_close(gradients, slopes, atol=relative * largest)


def enough(live_rows):
    """Capacities that just hold what was live, which do not rise."""
    most = np.minimum.accumulate(np.asarray(live_rows))
    return tuple(int(rows) for rows in np.maximum(most, 1))


def live_rows(model, params, *, devices=1):
    """The most live tokens of a device in each layer, of masked execution in `losses`."""
    masked = jax.jit(functools.partial(model.apply, train=True))
    mask = masked(params, IMAGES, key=jax.random.key(3), progress=0.5).aux["mask"][:-1]
    return mask.sum(-1).reshape(model.shape.depth, devices, -1).sum(-1).max(1)


CASES = {
    "plain": ({}, ONE),
    "with all it has": (
        {
            "name": "avit_tiny_distilled_patch16_224",
            "drop_path_rate": 0.6,
            "remat": True,
            "method": {"dense_until": 0.1, "ramp": 0.45},  # not fully switched on halfway
        },
        ONE,
    ),
    "two devices": ({"drop_path_rate": 0.6}, TWO),
    "rules and neighbours": ({"depth": 4, "method": RULES}, TWO),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.slow] * (c == "rules and neighbours")) for c in CASES],
)
def test_loss_gradients_and_logs_are_those_of_masked_execution(case):
    model, mesh = create(**CASES[case][0]), CASES[case][1]
    params = draw(model)
    theirs = losses(model, params, capacities=None)
    live = live_rows(model, params, devices=mesh.size)
    assert live[-1] < live[0]
    ours = losses(model, params, capacities=enough(live), mesh=mesh)
    assert ours[1][1].fits
    np.testing.assert_array_equal(ours[1][1].live_rows, live)
    assert_same(ours, theirs)


def test_class_tokens_that_halt_first_leave_ponder_and_prior_to_the_patches():
    model = create()
    params = draw(model)
    params["cls_token"] = params["cls_token"].at[:, :, 0].set(100.0)
    theirs = losses(model, params, capacities=None)
    live = live_rows(model, params)
    assert theirs[1][0]["halted"] == pytest.approx(2 / 3) and live[1] > 0
    assert_same(losses(model, params, capacities=enough(live)), theirs)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("avit_tiny_patch16_224", "cross_entropy"),
        pytest.param("avit_tiny_distilled_patch16_224", "hard", marks=pytest.mark.slow),
    ],
)
def test_a_teacher_that_compares_answers_and_class_tokens_teaches_the_same(name, answers):
    model = create(name)
    teacher = Teacher(plain_model(model.shape), Distillation(attention=0.0, answers=answers))
    params = draw(model)
    theirs = losses(model, params, capacities=None, teacher=teacher)
    ours = losses(model, params, capacities=enough(live_rows(model, params)), teacher=teacher)
    assert "teacher_hidden_penalty" in ours[1][0] and ours[1][0]["teacher_hidden_penalty"] > 0
    assert_same(ours, theirs)


@pytest.fixture(scope="module")
def trained():
    """Steps of two microbatches, masked and live, and the state in front of the first."""
    model = create(drop_path_rate=0.3)
    optimizer = optimizers.scale_by_rate_at_step(rate)
    recipe = dataclasses.replace(RECIPE, accumulation=2, mix=Mix(mixup=0.8))

    @functools.cache
    def step(capacities):
        made = steps.make_train_step(model, optimizer, rate, recipe, ONE, capacities)
        return jax.jit(made, out_shardings=replicated(ONE))

    def start(*, live):
        chosen = dataclasses.replace(recipe, on_live_rows=live)
        state = steps.init_state(model, optimizer, chosen).replace(params=draw(model))
        return jax.device_put(state, replicated(ONE))

    return step, start


MICROBATCH = tuple(rows // 2 for rows in EVERYTHING)


def test_a_step_is_that_of_masked_execution_and_counts_its_rows(trained):
    step, start = trained
    wanted, logs = step(None)(start(live=False), batch(0))
    state, averages = step(MICROBATCH)(start(live=True), batch(0), None, 0)
    assert averages.pop("fits") and int(state.step) == 1
    chex.assert_trees_all_close(state.params, wanted.params, atol=1e-6)
    chex.assert_trees_all_close(averages, logs, rtol=1e-4, atol=1e-6)
    assert state.most_live_rows[0] == MICROBATCH[0] and 0 < state.most_live_rows[-1] < MICROBATCH[0]


def test_a_step_without_room_and_those_behind_it_return_the_state_they_were_given(trained):
    step, start = trained
    state, _ = step(MICROBATCH)(start(live=True), batch(0), None, 0)
    # The fullest microbatch does not fit, the other one does.
    tight = (*MICROBATCH[:2], int(state.most_live_rows[-1]) - 1)
    for capacities, number in ((tight, 0), (MICROBATCH, 1)):
        after, averages = step(capacities)(start(live=True), batch(0), None, number)
        assert not averages["fits"]
        chex.assert_trees_all_equal(after, start(live=True))


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("avit_micro_patch4_32", {"method": {"kl_reading": "paper"}}, "kl_reading halting"),
        ("avit_micro_patch4_32", {"dropout_rate": 0.1}, "dropout_rate"),
        ("deit_micro_patch4_32", {}, "leave it at 'all'"),
        ("adavit_deit_micro_patch4_32", {}, "leave it at 'all'"),
    ],
)
def test_what_learns_from_halted_tokens_is_refused(name, changes, word):
    method = METHOD | changes.pop("method", {}) if name.startswith("avit") else None
    model = create_model(name, method=method, **SIZES | changes)
    rows = RowCapacities(capacities=EVERYTHING, mesh=ONE)
    with pytest.raises(UserError, match=word):
        model.apply(model.abstract_params(), jnp.zeros((1, 32, 32, 3)), rows=rows)
