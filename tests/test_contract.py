"""What every method must keep, found by itself in `avit_jax/methods`."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avit_jax
from avit_jax import methods, zoo
from avit_jax.execution.plan import Plan
from avit_jax.methods.base import Model
from avit_jax.runtime.device_mesh import make_mesh

NAMES = {zoo.entry(name).method: name for name in avit_jax.list_models("*tiny_patch16_224")}
BATCH, SIZE, CLASSES = 3, 32, 7
TOKENS = 1 + (SIZE // 8) ** 2
ONE_DEVICE = make_mesh(devices=jax.devices()[:1])
# In the middle of a method's range: some tokens, heads and halves run, some do not.
SETTINGS = {"avit": {"gate_scale": 4.0, "gate_center": 0.0}, "adavit": {"initial_logit": 0.0}}


class Case(NamedTuple):
    """A model, its parameters, and `model.apply`, compiled once for all tests."""

    model: Model
    params: dict
    apply: Callable


def tiny(method, **overrides):
    settings = {"method": SETTINGS.get(method, {})}
    sizes = {"image_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    return avit_jax.create_model(
        NAMES[method], num_classes=CLASSES, **{**sizes, **settings, **overrides}
    )


def start(model):
    """Parameters whose policies tell images and tokens apart: fresh ones hardly look at them."""
    params = model.init(jax.random.key(0))
    if "policies" not in params:
        return params
    return params | {"policies": jax.tree.map(lambda leaf: 50.0 * leaf, params["policies"])}


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (BATCH, SIZE, SIZE, 3))


@pytest.fixture(scope="module", params=methods.available())
def case(request):
    model = tiny(request.param)
    apply = jax.jit(model.apply, static_argnames=("train", "execution", "features"))
    return Case(model, start(model), apply)


def test_every_method_has_a_named_model():
    assert set(NAMES) == set(methods.available())


def test_output_has_the_shapes_of_the_contract(case, images):
    output = case.apply(case.params, images, features=True)
    shape = case.model.shape
    layers, tokens = shape.depth, shape.num_tokens
    chex.assert_shape(output.logits, (BATCH, CLASSES))
    chex.assert_type(output.logits, jnp.float32)
    chex.assert_shape(output.usage[0].tokens, (layers, BATCH, tokens))
    sizes = {"heads": shape.num_heads, "branches": 2}
    for name, size in sizes.items():
        if getattr(output.usage[0], name) is not None:
            chex.assert_shape(getattr(output.usage[0], name), (layers, BATCH, size))
    chex.assert_type(jax.tree.leaves(output.usage), bool)
    chex.assert_shape(output.aux["features"], (layers, BATCH, tokens, shape.embed_dim))
    for value in [*output.penalties.values(), *output.metrics.values()]:
        chex.assert_shape(value, ())
    chex.assert_tree_all_finite(output)


def test_gradients_are_finite_and_reach_every_parameter(case, images):
    @jax.jit
    @jax.grad
    def gradients(params):
        output = case.model.apply(params, images, train=True, key=jax.random.key(2))
        return output.logits.std() + sum(output.penalties.values())

    grads = gradients(case.params)
    chex.assert_tree_all_finite(grads)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if not np.any(leaf)
    ]
    assert not still


def test_jit_equals_eager(case, images):
    eager = case.model.apply(case.params, images)
    chex.assert_trees_all_close(eager, case.apply(case.params, images), atol=1e-5, rtol=1e-5)


def test_new_data_and_new_progress_do_not_retrace(case, images):
    traces = []

    @jax.jit
    def apply(params, images, progress):
        traces.append(1)
        return case.model.apply(params, images, progress=progress).logits

    apply(case.params, images, 0.5)
    apply(case.params, -images, 1.0)
    assert len(traces) == 1


@pytest.mark.parametrize("method", methods.available())
def test_the_same_key_gives_the_same_output(images, method):
    model = tiny(method, drop_path_rate=0.5, dropout_rate=0.2)
    params = start(model)
    apply = jax.jit(lambda key: model.apply(params, images, train=True, key=key))
    one, again, other = (apply(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, again)
    assert not np.array_equal(one.logits, other.logits)


@pytest.mark.parametrize("method", methods.available())
def test_randomness_without_a_key_is_refused(images, method):
    model = tiny(method, drop_path_rate=0.5)
    with pytest.raises(ValueError, match="pass key="):
        model.apply(model.abstract_params(), images, train=True)


def test_dense_execution_runs_everything(case, images):
    output = case.apply(case.params, images, execution="dense")
    assert all(bool(part.all()) for part in jax.tree.leaves(output.usage))
    assert not output.penalties
    np.testing.assert_allclose(case.model.gmacs(output), case.model.dense_gmacs(), rtol=1e-6)


def test_dense_execution_is_the_plain_transformer(case, images):
    plain = tiny("dense")
    params = {name: case.params[name] for name in plain.abstract_params()}
    expected = jax.jit(plain.apply)(params, images)
    dense = case.apply(case.params, images, execution="dense")
    np.testing.assert_allclose(dense.logits, expected.logits, atol=1e-5)


def test_skipping_never_costs_more_than_dense(case, images):
    gmacs = case.model.gmacs(case.apply(case.params, images))
    assert np.all(gmacs <= case.model.dense_gmacs() * (1 + 1e-6))
    assert np.all(gmacs > 0)


def test_an_image_does_not_depend_on_the_others(case, images):
    together = case.apply(case.params, images).logits
    alone = case.apply(case.params, images[1:2]).logits
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("execution", ["compact", "dense", "masked"])
def test_compiled_execution_gives_the_answers_of_apply(case, images, execution):
    model, params, apply = case
    plan = Plan(
        images=2, row_sizes=(8, 32), attention_images=2, lengths=(8, TOKENS), dense_images=2
    )
    # Three images in a program for five: groups and batch are both filled up.
    predict = model.compile(params, batch_size=5, execution=execution, plan=plan, mesh=ONE_DEVICE)
    answer = predict(np.asarray(images))
    mode = "dense" if execution == "dense" else "masked"
    expected = apply(params, images, execution=mode)
    if model.adaptive and mode == "masked":
        for part in jax.tree.leaves(expected.usage):
            assert 0.1 < part.mean() < 0.9, "hardly anything is skipped or runs: compares nothing"
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-5)
    chex.assert_trees_all_equal(answer.usage, expected.usage)
    chex.assert_shape(answer.aux["depth"], (BATCH, TOKENS))


def test_weights_travel_to_torch_names_and_back(case):
    model, params, _ = case
    chex.assert_trees_all_equal(model.from_torch(model.to_torch(params)), params)


def test_bfloat16_arithmetic_keeps_float32_parameters_and_answers(case, images):
    low = type(case.model)(tiny("dense", dtype="bfloat16").shape, case.model.settings)
    apply = jax.jit(low.apply, static_argnames="execution")
    output = apply(case.params, images)
    chex.assert_type([output.logits, *output.metrics.values()], jnp.float32)
    chex.assert_type(jax.tree.leaves(low.abstract_params()), jnp.float32)
    plain = case.apply(case.params, images, execution="dense").logits
    close = apply(case.params, images, execution="dense").logits
    np.testing.assert_allclose(close, plain, atol=0.05 * np.abs(plain).max())


def test_wrong_images_and_executions_are_named(case):
    model, params, _ = case
    with pytest.raises(ValueError, match="images have shape"):
        model.apply(params, jnp.zeros((1, SIZE + 8, SIZE, 3)))
    with pytest.raises(ValueError, match="masked or dense"):
        model.apply(params, jnp.zeros((1, SIZE, SIZE, 3)), execution="quick")


def test_a_dial_reaches_from_its_own_setting_to_dense_and_far_below(case, images):
    model, params, _ = case
    dial = model.dial()
    if dial is None:
        pytest.skip("the method has no dial")
    apply = jax.jit(lambda settings: model.apply(params, images, settings=settings))
    least, own, most = (apply(dial.settings(position)) for position in (dial.low, 0.0, dial.high))
    chex.assert_trees_all_close(own, case.apply(params, images), atol=1e-5)
    assert all(bool(part.all()) for part in jax.tree.leaves(most.usage))
    costs = [float(model.gmacs(output).mean()) for output in (least, own, most)]
    assert costs == sorted(set(costs))
