"""Halting rules and neighbours: every execution gives the answers of masked execution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax.benchmark import profiles
from avit_jax.errors import UserError
from avit_jax.execution.capped import CAPPED
from avit_jax.execution.compact import COMPACT
from avit_jax.execution.execution import executed_gmacs
from avit_jax.execution.masked import MASKED
from avit_jax.execution.plan import Plan
from avit_jax.execution.static import STATIC
from avit_jax.methods.avit import spread
from avit_jax.models import costs
from avit_jax.runtime.device_mesh import make_mesh
from avit_jax.training.optimizers import decayed
from tests.execution.executed import counting
from tests.models.test_costs import multiply_adds

BATCH, LAYERS, TOKENS = 5, 4, 17
ONE, TWO = (make_mesh(devices=jax.devices()[:count]) for count in (1, 2))
EVERY_RULE = {
    "min_depth": 2,
    "max_depth": 3,
    "halt_from": 2,
    "layer_centers": (1.0, -1.0, 0.5, 0.0),
    "learn_gates": True,
    "spread": "square",
    "spread_share": 0.6,
    "spread_decay": 0.1,
    "spread_from": 2,
    "spread_until": 3,
}
CASES = {
    "every rule": EVERY_RULE | {"class_tokens_halt": False},
    "least depth": {"min_depth": 3},
    "most depth": {"max_depth": 3},
    "first layer": {"halt_from": 3},
    "class tokens stay": {"class_tokens_halt": False},
    "gates of layers": {"layer_centers": (1.0, -1.0, 0.5, 0.0)},
    "cross, some": {"spread": "cross", "spread_share": 0.5},
    "cross, late": {"spread": "cross", "spread_from": 2, "spread_until": 2},
} | {name: {"spread": name} for name in spread.NEIGHBOURS if name != "identity"}


@functools.cache
def case_of(name):
    """A model, weights and images whose tokens halt in various layers, and what comes of it."""
    model = avit_jax.create_model(
        "avit_tiny_patch16_224", image_size=32, patch_size=8, embed_dim=24, depth=LAYERS,
        num_heads=3, num_classes=7, method={"gate_scale": 3.0, "gate_center": 0.7} | CASES[name],
    )  # fmt: skip
    params = jax.tree.map(lambda leaf: 1.5 * leaf, model.init(jax.random.key(0)))
    if "gate_offsets" in params:
        params["gate_offsets"] = jnp.asarray([0.3, -0.4, 0.2, 0.1])
    images = np.random.default_rng(0).normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
    output = jax.jit(model.apply)(params, images)
    counts = np.asarray(output.usage[0].tokens).sum((1, 2))
    assert output.aux["margin"].min() > 1e-4, "rounding may decide"
    assert counts[-1] < counts[0] and counts[1] > BATCH, "too much or too little halts"
    return model, params, images, output


def sized(model, usage, batch_size):
    """Just as much room as there has to be for everything."""
    counts = np.asarray(usage[0].tokens).sum(-1)
    return dataclasses.replace(
        model.default_plan(batch_size),
        static_rows=tuple(int(rows) for rows in np.maximum(counts.sum(1), 1)),
        capacities=tuple(int(places) for places in np.maximum(counts.max(1), 1)),
    )


def assert_same(name, execution, batch_size=BATCH, mesh=ONE):
    model, params, images, expected = case_of(name)
    plan = sized(model, expected.usage, batch_size)
    predict = model.compile(
        params, batch_size=batch_size, execution=execution, plan=plan, mesh=mesh
    )
    found = [predict(images[i : i + batch_size]) for i in range(0, BATCH, batch_size)]
    logits = np.concatenate([one.logits for one in found])
    tokens = np.concatenate([one.usage[0].tokens for one in found], 1)
    np.testing.assert_array_equal(tokens, expected.usage[0].tokens)
    np.testing.assert_allclose(logits, expected.logits, atol=2e-5 * np.abs(expected.logits).max())


@pytest.mark.parametrize(
    "execution", ["compact", "static", pytest.param("capped", marks=pytest.mark.slow)]
)
def test_every_rule_at_once_is_exact(execution):
    assert_same("every rule", execution)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["compact", "static", "capped"])
@pytest.mark.parametrize("name", [name for name in CASES if name != "every rule"])
def test_each_rule_alone_is_exact(name, execution):
    assert_same(name, execution)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["every rule", "cross, some"])
@pytest.mark.parametrize("batch", [1, 6])
def test_neither_other_images_nor_devices_change_an_answer(name, batch):
    assert_same(name, "compact" if batch == 1 else "static", batch, TWO if batch == 6 else ONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["every rule", "cross, some"])
@pytest.mark.parametrize("compact", [True, False])
def test_streams_give_the_same_answers(name, compact, monkeypatch):
    model, params, images, expected = case_of(name)
    segments = type(model).segments
    monkeypatch.setattr(
        type(model), "segments", lambda self, plan, **_: segments(self, plan, compact=compact)
    )
    with model.stream(params, batch_size=2, max_wait=None, devices=jax.devices()[:1]) as stream:
        found = np.stack([answer.logits for answer in stream.map(images)])
    np.testing.assert_allclose(found, expected.logits, atol=2e-5 * np.abs(expected.logits).max())


def test_draws_are_those_of_the_image_wherever_it_stands():
    model, params, images, expected = case_of("every rule")
    order = np.asarray([3, 0, 4, 1, 2])
    found = jax.jit(model.apply)(params, images[order])
    np.testing.assert_array_equal(found.aux["mask"], expected.aux["mask"][:, order])


def test_layers_behind_the_last_run_nowhere_and_cost_nothing():
    model, params, _, expected = case_of("every rule")
    everything = model.shape.num_tokens * BATCH
    plan = dataclasses.replace(
        sized(model, expected.usage, BATCH), images=BATCH, static_rows=(everything,) * LAYERS
    )
    images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), jnp.float32)
    exists = jax.ShapeDtypeStruct((BATCH,), bool)
    counted = {}
    for execution in (MASKED, STATIC, CAPPED):
        traced = jax.make_jaxpr(model.program(execution, plan))(params, images, exists)
        counted[execution.name] = multiply_adds(traced.jaxpr)
        found = executed_gmacs(execution, model, expected.usage, plan)
        assert found * 1e9 == pytest.approx(counted[execution.name], rel=1e-6)
    shape = model.shape
    block = costs.attention(shape, TOKENS) + costs.mlp(shape, TOKENS)
    assert counted["masked"] == pytest.approx(BATCH * (model.dense_gmacs() * 1e9 - block))
    dense = model.apply(params, np.zeros((1, 32, 32, 3), np.float32), execution="dense")
    assert dense.usage[0].tokens.all()


@pytest.mark.slow
def test_what_compact_execution_counts_is_what_it_runs():
    model, params, images, expected = case_of("every rule")
    plan = Plan(
        images=3, row_sizes=(8, 32), attention_images=1, lengths=(8, TOKENS), dense_images=2
    )
    arguments = params, images, np.ones(BATCH, bool)
    run_adds, output = counting(model.program(COMPACT, plan), *arguments)(*arguments)
    np.testing.assert_array_equal(output.usage[0].tokens, expected.usage[0].tokens)
    assert model.compact_gmacs(output.usage, plan) * 1e9 == pytest.approx(run_adds)
    assert model.inference_gmacs(expected.usage).sum() * 1e9 <= run_adds


def test_learnt_gates_start_at_0_beside_plain_weights_get_gradients_and_no_decay(caplog):
    model, params, images, _ = case_of("every rule")
    fresh = model.init(jax.random.key(1))
    assert not fresh["gate_offsets"].any() and fresh["gate_offsets"].shape == (LAYERS,)
    assert not decayed(fresh)["gate_offsets"]
    plain = avit_jax.zoo.plain_model(model.shape)
    loaded = model.from_torch(plain.to_torch(plain.init(jax.random.key(1))))
    assert "no gate_offsets" in caplog.text and not loaded["gate_offsets"].any()
    stored = model.to_torch(params)
    np.testing.assert_array_equal(stored["gate_offsets"], params["gate_offsets"])
    again = model.from_torch(stored)
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(params)))

    def loss(params):
        return sum(model.apply(params, images).penalties.values())

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    # Layer 1 counts nothing here, 3 is the last, and 4 does not run.
    assert np.flatnonzero(gradients["gate_offsets"]).tolist() == [1, 2]


def test_synthetic_profiles_know_no_other_rules():
    model, *_ = case_of("every rule")
    assert not model.synthetic_profiles()
    assert profiles.sensible(model) == ("real",)
    with pytest.raises(UserError, match=r"method.spread is .square., but synthetic images"):
        model.synthetic(0.5, 2)
